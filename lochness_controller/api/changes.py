"""Which changes of the store were there last, for those who follow them? A window over the latest, and the way into it.

Invariants:
1. Every change of the window's revisions is in it, in order; all changes of one revision are in it or none.
2. The window holds at most `WINDOW_CHANGES_MAX` changes and `WINDOW_BYTES_MAX` bytes of values, however many follow and
   however slow they are. Who is slower than the window is told so, and reads the store's own history instead.
3. What is nobody's business (tokens, kept answers, locks) is not in it.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from lochness import keys
from lochness.store.protocol import Change, WatchBatch

WINDOW_CHANGES_MAX: Final = 10_000
WINDOW_BYTES_MAX: Final = 8 << 20
#: So many that have left the window are still held, so that the list is not moved for each.
DROPPED_MAX: Final = 500

#: The path of each kind that is told of, and the kind's name.
KIND_OF_PATH: Final = {
    keys.CONFIG_PATH: "config",
    keys.CONTROLLER_PATH: "controller",
    keys.FLAVOR_PATH: "flavor",
    keys.FWGROUP_PATH: "fwgroup",
    keys.GUEST_PATH: "guest",
    keys.HYPERVISOR_PATH: "hypervisor",
    keys.IMAGE_PATH: "image",
    keys.JOB_PATH: "job",
    keys.NETWORK_PATH: "network",
    keys.SUBNET_PATH: "subnet",
    keys.VLAN_PATH: "vlan",
    keys.VLANGROUP_PATH: "vlangroup",
}


def path_of(key: str) -> str:
    """The path of the key's kind, "" when it is not told of."""
    path = key[: key.find("/", len(keys.ROOT)) + 1]
    return path if path in KIND_OF_PATH else ""


def told(changes: Iterable[Change]) -> list[Change]:
    """Those that are everybody's business."""
    return [change for change in changes if path_of(change.key)]


class Changes:
    """The window. `take` and `begin_anew` come from one thread, the rest may come from any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: list[Change] = []
        self._begin = 0  # what stands before it in `_changes` has left the window
        self._bytes = 0
        #: Changes after this revision are in the window (0: there is no window yet), up to `last`.
        self._first = 0
        self._last = 0
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._is_closed = False
        #: How often the store went back (emptied, restored): what was told before is not continued after it.
        self.restores = 0

    @property
    def first(self) -> int:
        """The revision after which the window begins; 0 before the store was seen."""
        return self._first

    @property
    def last(self) -> int:
        """The last revision that the window has."""
        return self._last

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def take(self, batch: WatchBatch) -> None:
        """Add a batch; what is too old goes."""
        changes = told(batch.changes)
        with self._lock:
            self._changes.extend(changes)
            self._bytes += sum(_size(change) for change in changes)
            self._last = batch.revision
            while len(self._changes) - self._begin > WINDOW_CHANGES_MAX or self._bytes > WINDOW_BYTES_MAX:
                self._drop_oldest_revision()
            if self._begin > DROPPED_MAX:
                del self._changes[: self._begin]
                self._begin = 0
        self._wake()

    def begin_anew(self, revision: int, went_back: bool) -> None:
        """Changes were missed: the window begins after `revision`. `went_back`: in a store that was there before."""
        with self._lock:
            self.restores += went_back
            self._changes.clear()
            self._begin = self._bytes = 0
            self._first = self._last = revision
        self._wake()

    def after(self, revision: int, limit: int) -> tuple[list[Change], int] | None:
        """Changes after `revision` and the revision that they reach to: about `limit` of them, whole revisions.

        None when the window does not reach back so far, or not on so far.
        """
        with self._lock:
            if not self._first <= revision <= self._last:
                return None
            start = bisect_right(self._changes, revision, lo=self._begin, key=_revision)
            end = min(start + limit, len(self._changes))
            if end > start:  # to the end of that revision
                end = bisect_right(self._changes, _revision(self._changes[end - 1]), lo=end - 1, key=_revision)
            found = self._changes[start:end]
            return found, self._last if end == len(self._changes) else _revision(found[-1])

    def close(self) -> None:
        """Wake everybody for the end."""
        self._is_closed = True
        self._wake()

    @contextmanager
    def heard(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set whenever there is something new."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._waiting.discard(entry)

    def _wake(self) -> None:
        with self._lock:
            for loop, event in self._waiting:
                if not event.is_set() and not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)

    def _drop_oldest_revision(self) -> None:
        self._first = _revision(self._changes[self._begin])
        while self._begin < len(self._changes) and _revision(self._changes[self._begin]) == self._first:
            self._bytes -= _size(self._changes[self._begin])
            self._begin += 1


def ends_of_revisions(changes: Sequence[Change]) -> Iterator[tuple[Change, bool]]:
    """Each change, and whether it is the last of its revision."""
    for number, change in enumerate(changes):
        is_last = number + 1 == len(changes) or changes[number + 1].mod_revision != change.mod_revision
        yield change, is_last


def _revision(change: Change) -> int:
    return change.mod_revision


def _size(change: Change) -> int:
    return len(change.key) + len(change.value or b"")
