"""How do lists and streams know what the store holds? One watch of everything, told to whoever follows it.

Invariants:
1. `current` is at least as new as everything that was committed before it was called, by whomever; and it is not newer
   than the store: one that was emptied or restored is shown as it is, at once.
2. Where the watch is behind for longer than `CATCH_UP_LIMIT_S` (it was lost, or others write to the same etcd all the
   time), the answer is read from the store.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from lochness import events, keys
from lochness.log import get_logger
from lochness.store.protocol import Key, KeyValue, Prefix, Reading, Store, WatchBatch
from lochness.store.watching import Watching
from lochness_controller.api.job_list import JobList
from lochness_controller.api.picture import PICTURE_SELECTORS, Picture

#: How long a request waits for the watch to bring what the store has already.
CATCH_UP_LIMIT_S: Final = 0.25

_JOBS: Final = Prefix(keys.JOB_PATH)

_log = get_logger("api")


class Mirror:
    """Follows the store from `start` to `stop`. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._picture = Picture()
        self._jobs = JobList()
        self._arrived = threading.Condition()
        self._on_batch: list[Callable[[WatchBatch], None]] = []
        self._on_gap: list[Callable[[int, bool], None]] = []
        self._watching = Watching(
            store,
            keys.ROOT,
            on_snapshot=self._take_snapshot,
            on_batch=self._take_batch,
            on_transition=_tell_transition,
            # Not read anew as long as the watch holds: what is told to followers has no gap then.
            relist_s=math.inf,
            selectors=(*PICTURE_SELECTORS, _JOBS),
        )

    def follow(self, on_batch: Callable[[WatchBatch], None], on_gap: Callable[[int, bool], None]) -> None:
        """Tell of every batch, and of the revision up to which changes were missed, with whether the store went back
        (emptied, restored). Both are called on the watch's thread and must not wait."""
        self._on_batch.append(on_batch)
        self._on_gap.append(on_gap)

    def start(self) -> None:
        """Begin; never waits for the store."""
        self._watching.start()

    def stop(self) -> None:
        """End; waits a second at most."""
        self._watching.stop()

    @property
    def is_current(self) -> bool:
        """Whether all was read and the watch is not known to be broken."""
        return self._watching.is_current

    def read_revision(self) -> int:
        """The store's revision of now. The watch is held to it: see `Watching.expect`. Raises UnavailableError."""
        revision = self._store.read(Key(keys.ROOT)).revision
        self._watching.expect(revision)
        return revision

    def current(self) -> Picture:
        """The picture of now. Raises UnavailableError."""
        if self._is_current():
            return self._picture
        reading = self._store.read(*PICTURE_SELECTORS)
        return _picture_of(reading.revision, reading.ranges)

    def jobs(self) -> JobList:
        """The jobs of now. Raises UnavailableError."""
        return self._jobs if self._is_current() else JobList(self._store.read(_JOBS).ranges[0])

    def _is_current(self) -> bool:
        """Whether the watch has brought all that the store has, within `CATCH_UP_LIMIT_S`. Raises UnavailableError."""
        before = max(self._picture.revision, self._watching.revision)
        revision = self.read_revision()
        if revision < before:  # readings only ever go on: the store went back, and the watch has yet to notice
            return False
        deadline_s = time.monotonic() + CATCH_UP_LIMIT_S
        with self._arrived:
            while max(self._picture.revision, self._watching.revision) < revision:
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    return False
                self._arrived.wait(remaining_s)
        return True

    def _take_snapshot(self, reading: Reading) -> None:
        *shown, jobs = reading.ranges
        picture = _picture_of(reading.revision, shown)
        picture.guests()  # encoded here once, not by the first who asks
        self._jobs.replace(JobList(jobs))
        self._picture.replace(picture)
        self._announce()
        for tell in self._on_gap:
            tell(reading.revision, self._watching.went_back)

    def _take_batch(self, batch: WatchBatch) -> None:
        self._jobs.apply(batch.changes)
        self._picture.apply(batch.changes, batch.revision)
        self._announce()
        for tell in self._on_batch:
            tell(batch)

    def _announce(self) -> None:
        with self._arrived:
            self._arrived.notify_all()


def _picture_of(revision: int, ranges: Iterable[Iterable[KeyValue]]) -> Picture:
    return Picture(revision, (item for items in ranges for item in items))


def _tell_transition(event: str, fields: Mapping[str, object]) -> None:
    tell = _log.info if event == events.WATCH_RECOVERED else _log.warning
    if event == events.PASS_FAILED:
        tell = _log.error
    tell(event, **fields)
