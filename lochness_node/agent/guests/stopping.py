"""How does a job wait until a guest has stopped?

1. libvirt's events end the wait at once; the domain is also looked at every RECHECK_S, as an event can be lost.
2. A libvirt that is away for a while is not taken for a guest that has stopped.
"""

from __future__ import annotations

import threading
from typing import Final

from lochness.clock import Clock
from lochness.errors import DeadlineError, NotFoundError, UnavailableError
from lochness.identity import GuestID
from lochness_node.driver.protocol import Driver, EventKind

RECHECK_S: Final = 5.0


class StopWatch:
    """Waits on the domains of `driver`. Safe to share between threads; one waits for a guest at a time."""

    def __init__(self, driver: Driver, clock: Clock) -> None:
        self._driver = driver
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[GuestID, threading.Event] = {}
        driver.on_event(self._heard)

    def wait(self, guest_id: GuestID, timeout_s: float) -> bool:
        """Whether the guest's domain stopped being active, or went away, within `timeout_s`. Raises DriverError."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        news = threading.Event()
        with self._lock:
            self._waiting[guest_id] = news
        try:
            while self._is_active(guest_id):
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s <= 0:
                    return False
                news.wait(min(left_s, RECHECK_S))
                news.clear()
            return True
        finally:
            with self._lock:
                self._waiting.pop(guest_id, None)

    def _is_active(self, guest_id: GuestID) -> bool:
        try:
            return self._driver.domain(guest_id).state.is_active
        except NotFoundError:
            return False
        except (UnavailableError, DeadlineError):
            return True

    def _heard(self, guest_id: GuestID | None, _: EventKind) -> None:
        """On libvirt's event thread: only wake those whom it concerns."""
        with self._lock:
            waiting = list(self._waiting.values()) if guest_id is None else [self._waiting.get(guest_id)]
        for news in waiting:
            if news is not None:
                news.set()
