"""Since when is a hypervisor lost? Written down when its heartbeat goes, taken back when it beats again.

Invariants:
1. Only the leader writes; every write is compared with what it rests on, so that two leaders do no harm.
2. A loss is written at once, and logged when it has lasted for `TOLD_AFTER_S`: a heartbeat daemon that is restarted is
   nobody's business. Many at once are one line: then it is etcd or the network, not the hosts.
3. What could not be written is tried again, after `RETRY_S`.

Not guaranteed: that a loss while no controller ran is dated right. It is dated when the first one saw it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from lochness import events, keys
from lochness.clock import Clock
from lochness.errors import LochnessError
from lochness.log import get_logger
from lochness.store.protocol import Reading, Store, WatchBatch
from lochness.store.watching import Watching
from lochness.transactions import joined
from lochness_controller.liveness.decide import MARKS_PER_TRANSACTION, Action, Mark, Unmark, decide, transaction
from lochness_controller.liveness.view import LivenessView

RETRY_S: Final = 2.0
TOLD_AFTER_S: Final = 5.0
#: More losses than this at once are told in one line, which names so many of them.
TOLD_EACH_MAX: Final = 10
_PASS_S: Final = 60.0
_TELL_S: Final = 1.0

_log = get_logger("liveness")


class Liveness:
    """Keeps hypervisors/ID/lost true from `start` to `stop`, while `is_leader`."""

    def __init__(self, store: Store, clock: Clock, *, is_leader: Callable[[], bool]) -> None:
        self._store = store
        self._clock = clock
        self._is_leader = is_leader
        self._view = LivenessView(clock)
        self._untold: dict[str, tuple[float, str]] = {}  # marked and not told yet -> when that was, and since when
        self._wake_up = threading.Event()
        self._stopping = threading.Event()
        self._watching = Watching(
            store,
            keys.HYPERVISOR_PATH,
            on_snapshot=self._take_snapshot,
            on_batch=self._take_batch,
            on_transition=lambda _event, _fields: None,  # the watch of the jobs tells of a store that is away
        )
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def start(self) -> None:
        self._watching.start()
        self._thread.start()

    def stop(self, limit_s: float) -> None:
        """Write nothing any more; waits at most `limit_s`."""
        self._stopping.set()
        self._wake_up.set()
        threading.Thread(target=self._watching.stop, name="liveness-end", daemon=True).start()
        if self._thread.ident is not None:
            self._thread.join(limit_s)

    def wake(self) -> None:
        """The leader may be another one now."""
        self._wake_up.set()

    def _take_snapshot(self, reading: Reading) -> None:
        self._view.take_snapshot(reading)
        self._wake_up.set()

    def _take_batch(self, batch: WatchBatch) -> None:
        if self._view.take_batch(batch):
            self._wake_up.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake_up.clear()
            try:
                is_done = self._pass()
            except Exception:  # the pass boundary: the next one is the cure
                _log.exception(events.PASS_FAILED)
                is_done = False
            if not is_done:
                self._stopping.wait(RETRY_S)
                continue
            self._wake_up.wait(_TELL_S if self._untold else _PASS_S)

    def _pass(self) -> bool:
        """Write what has changed; answers whether all of it was written."""
        if not self._is_leader():
            return True
        changed = self._view.take_changed()
        actions = decide(changed)
        for start in range(0, len(actions), MARKS_PER_TRANSACTION):
            batch = actions[start : start + MARKS_PER_TRANSACTION]
            try:
                joined(map(transaction, batch)).commit(self._store)
            except LochnessError:
                self._view.put_back({action.hypervisor for action in actions[start:]})
                return False
            self._note(batch)
        self._tell()
        return True

    def _note(self, written: Sequence[Action]) -> None:
        for action in written:
            match action:
                case Mark(hypervisor=id, since=since):
                    self._untold[id] = (time.monotonic(), since)
                case Unmark(hypervisor=id) if id in self._untold:
                    del self._untold[id]
                case Unmark(hypervisor=id, since=since) if since:
                    lost_s = (self._clock.now() - datetime.fromisoformat(since)).total_seconds()
                    _log.info(events.HYPERVISOR_RETURNED, hypervisor=id, lost_s=round(lost_s, 1))

    def _tell(self) -> None:
        """Log the losses that have lasted."""
        before_s = time.monotonic() - TOLD_AFTER_S
        lasting = {id: since for id, (marked_s, since) in self._untold.items() if marked_s <= before_s}
        for id in lasting:
            del self._untold[id]
        if len(lasting) > TOLD_EACH_MAX:
            _log.error(events.HYPERVISORS_LOST, count=len(lasting), some=", ".join(list(lasting)[:TOLD_EACH_MAX]))
            return
        for id, since in lasting.items():
            _log.warning(events.HYPERVISOR_LOST, hypervisor=id, since=since)
