"""What are this host's domains, without asking libvirt for each of them whenever one has changed?

Invariants:
1. What `recent` answers was seen in one look at all domains, at most `max_age_s` ago, and again, one by one, for each
   domain that had an event since.
2. After RESYNC, a connection that was lost or is back, and a look that failed, all are looked at.
3. An event that comes during a look counts for the next one.

Not guaranteed: that what comes without an event (a foreign domain's balloon) is seen before the next look at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from lochness.clock import Clock
from lochness.errors import NotFoundError
from lochness.identity import GuestID
from lochness_node.driver.protocol import ConnectionState, Domain, Driver, EventKind


class SeenDomains:
    """The domains of `driver`'s host. `on_news` is called, on any thread, when a look would show something new."""

    def __init__(self, driver: Driver, clock: Clock, on_news: Callable[[], None]) -> None:
        self._driver = driver
        self._clock = clock
        self._on_news = on_news
        self._lock = threading.Lock()  # guards the two that follow
        self._changed: set[GuestID] = set()
        self._is_all_in_doubt = True
        self._seen: dict[str, Domain] = {}
        self._seen_at_s = 0.0
        driver.on_event(self._heard)
        driver.on_connection(self._connection_changed)

    @property
    def has_news(self) -> bool:
        """Whether some domain had an event since the last look."""
        return bool(self._changed)

    def all(self) -> tuple[Domain, ...]:
        """As `Driver.domains`, now."""
        self._take_news()
        return self._look(None)

    def recent(self, max_age_s: float) -> tuple[Domain, ...]:
        """As `all`, but only the changed ones are looked at when the last look at all is not older than that."""
        changed = self._take_news()
        is_old = self._clock.monotonic_s() - self._seen_at_s > max_age_s
        # Domain by domain costs more for each than all at once.
        return self._look(None if is_old or changed is None or 2 * len(changed) > len(self._seen) else changed)

    def _look(self, changed: set[GuestID] | None) -> tuple[Domain, ...]:
        """Look at these, None: at all."""
        try:
            if changed is None:
                now_s = self._clock.monotonic_s()
                self._seen = {domain.uuid: domain for domain in self._driver.domains()}
                self._seen_at_s = now_s
            else:
                for id in changed:
                    self._look_at(id)
        except BaseException:
            with self._lock:
                self._is_all_in_doubt = True
            raise
        return tuple(sorted(self._seen.values(), key=lambda domain: domain.uuid))

    def _look_at(self, id: GuestID) -> None:
        try:
            self._seen[id] = self._driver.domain(id)
        except NotFoundError:
            self._seen.pop(id, None)

    def _take_news(self) -> set[GuestID] | None:
        """Which have changed, None when that is not known."""
        with self._lock:
            changed, self._changed = self._changed, set()
            is_all_in_doubt, self._is_all_in_doubt = self._is_all_in_doubt, False
        return None if is_all_in_doubt else changed

    def _heard(self, guest_id: GuestID | None, kind: EventKind) -> None:
        with self._lock:
            if guest_id is None or kind is EventKind.RESYNC:
                self._is_all_in_doubt = True
            else:
                self._changed.add(guest_id)
        self._on_news()

    def _connection_changed(self, _state: ConnectionState) -> None:
        with self._lock:
            self._is_all_in_doubt = True
        self._on_news()
