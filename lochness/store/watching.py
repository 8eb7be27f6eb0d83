"""How does a daemon keep up with a prefix: a full reading first, then every change, whatever happens to the store?

Invariants:
1. `on_snapshot` comes first; each `on_batch` continues exactly where the last snapshot or batch ended. Nothing is
   skipped and nothing comes twice between two snapshots.
2. A broken watch resumes at the next revision. A compacted one, a store whose revisions went back (restored from a
   backup) and a callback that raised begin again with a snapshot; so does every `relist_s`, as a safety net.
3. All callbacks run in one thread, one after the other, and none begins after `stop` has returned.
4. The loss and the recovery are reported once each, not every retry.

Not guaranteed: that the view is fresh. Between a loss and its recovery it is as old as `revision`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from lochness import events
from lochness.errors import CompactedError, LochnessError, UnavailableError
from lochness.store.protocol import Key, Prefix, Reading, Selector, Store, Watch, WatchBatch

RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
RELIST_S: Final = 600.0
STOP_LIMIT_S: Final = 1.0

_WAIT_S: Final = 5.0
_PROBE_S: Final = 0.1  # a watch that has not failed for so long after a loss is taken for recovered

T = TypeVar("T")

OnTransition = Callable[[str, Mapping[str, object]], None]


class _CallbackError(Exception):
    """Carries what a callback raised, as its cause, past the handling of our own store's errors."""


class Watching:
    """Follows `prefix` in a thread of its own from `start` to `stop`.

    `on_snapshot` gets the reading of the whole prefix, `on_batch` the changes after it; `on_transition` an event's name
    (events.WATCH_LOST, events.WATCH_RECOVERED, events.PASS_FAILED when a callback raised, with `exc_info`) and fields.
    Retries wait from RETRY_MIN_S doubling to `retry_max_s`, each with a random part taken off. `selectors` is what the
    snapshot reads where that is less than the whole prefix; the changes are those of all of it.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        on_snapshot: Callable[[Reading], None],
        on_batch: Callable[[WatchBatch], None],
        on_transition: OnTransition,
        retry_max_s: float = RETRY_MAX_S,
        relist_s: float = RELIST_S,
        selectors: Sequence[Selector] = (),
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._selectors = tuple(selectors) or (Prefix(prefix),)
        self._on_snapshot = on_snapshot
        self._on_batch = on_batch
        self._on_transition = on_transition
        self._retry_max_s = retry_max_s
        self._relist_s = relist_s
        #: Everything up to this revision has been handed to the callbacks; 0 before the first snapshot.
        self.revision = 0
        #: Whether the snapshot that `on_snapshot` is given is of a store that was emptied or restored from a backup.
        self.went_back = False
        self._seen_at = 0
        self._needs_snapshot = True
        self._relist_at_s = 0.0
        self._failures = 0
        self._lost_at_s: float | None = None
        self._has_callback_failed = False
        self._stopping = threading.Event()
        self._watch_lock = threading.Lock()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=f"watching {prefix}", daemon=True)

    @property
    def is_current(self) -> bool:
        """Whether the view has been read and the watch is not known to be broken."""
        return self.revision > 0 and self._lost_at_s is None and not self._stopping.is_set()

    def expect(self, revision: int) -> None:
        """The store was seen at `revision` by another reading, whose answer somebody goes by: when the watch comes back
        to a store below it, that store went back, even if the watch itself never came so far."""
        self._seen_at = max(self._seen_at, revision)

    def start(self) -> None:
        """Begin. Never waits for the store."""
        self._thread.start()

    def stop(self) -> bool:
        """End. True when the thread has ended within STOP_LIMIT_S.

        False when it still waits for a store that does not answer; it then ends by itself at the call's deadline.
        """
        self._stopping.set()
        with self._watch_lock:
            if self._watch is not None:
                self._watch.close()
        if threading.current_thread() is self._thread:
            return False
        if self._thread.ident is not None:
            self._thread.join(STOP_LIMIT_S)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except CompactedError:
                self._needs_snapshot = True  # begins again at once: the store is there
            except LochnessError as error:
                self._report_lost(error)
            except Exception as error:  # the pass boundary: a callback's fault must not end the watching
                self._report_failed(error.__cause__ if isinstance(error, _CallbackError) else error)
            if self._failures:
                self._stopping.wait(self._retry_delay_s())

    def _follow(self) -> None:
        """Read if need be, then hand on changes until something ends the watch."""
        went_back = False
        if not self._needs_snapshot:
            # Also asks whether the store is there, and not older than our view.
            newest = self._newest()
            went_back = self._needs_snapshot = self._store.read(Key(self._prefix)).revision < newest
        if self._needs_snapshot:
            self._take_snapshot(went_back)
        watch = self._open_watch()
        try:
            while not self._stopping.is_set():
                if time.monotonic() >= self._relist_at_s:
                    self._needs_snapshot = True
                    return
                batch = watch.next(_PROBE_S if self._failures else _WAIT_S)
                self._report_recovered()
                if batch is not None:
                    if batch.changes:
                        self._call(self._on_batch, batch)
                    self.revision = batch.revision
        finally:
            watch.close()

    def _take_snapshot(self, went_back: bool) -> None:
        """Read all of it and hand it on. What was read is not kept for as long as the watch lives."""
        newest = self._newest()
        reading = self._store.read(*self._selectors)
        self.went_back = went_back or reading.revision < newest
        self._call(self._on_snapshot, reading)
        self.revision = reading.revision
        if self.went_back:
            self._seen_at = reading.revision
        self._needs_snapshot = False
        self._relist_at_s = time.monotonic() + self._relist_s * random.uniform(0.75, 1.25)

    def _newest(self) -> int:
        """The highest revision that the store is known to have had. Ask before reading: readings only ever go on."""
        return max(self.revision, self._seen_at)

    def _open_watch(self) -> Watch:
        watch = self._store.watch(self._prefix, start_revision=self.revision + 1)
        with self._watch_lock:
            self._watch = watch
            if self._stopping.is_set():
                watch.close()
        return watch

    def _call(self, callback: Callable[[T], None], news: T) -> None:
        if self._stopping.is_set():
            raise UnavailableError("the watching was stopped")
        try:
            callback(news)
        except Exception as error:
            raise _CallbackError from error  # also a LochnessError: it says nothing about our watch
        self._has_callback_failed = False

    def _report(self, event: str, fields: Mapping[str, object]) -> None:
        if not self._stopping.is_set():
            self._on_transition(event, fields)

    def _report_lost(self, error: LochnessError) -> None:
        self._failures += 1
        if self._lost_at_s is None:
            self._lost_at_s = time.monotonic()
            fields = {"prefix": self._prefix, "revision": self.revision, "error": error.message}
            self._report(events.WATCH_LOST, fields)

    def _report_failed(self, error: BaseException | None) -> None:
        self._needs_snapshot = True
        self._failures += 1
        if not self._has_callback_failed:
            self._has_callback_failed = True
            self._report(events.PASS_FAILED, {"prefix": self._prefix, "error": repr(error), "exc_info": error})

    def _report_recovered(self) -> None:
        self._failures = 0
        if self._lost_at_s is not None:
            lost_s = round(time.monotonic() - self._lost_at_s, 3)
            self._report(events.WATCH_RECOVERED, {"prefix": self._prefix, "revision": self.revision, "lost_s": lost_s})
            self._lost_at_s = None

    def _retry_delay_s(self) -> float:
        longest_s = min(RETRY_MIN_S * 2.0 ** min(self._failures - 1, 16), self._retry_max_s)
        return longest_s * random.uniform(0.5, 1.0)
