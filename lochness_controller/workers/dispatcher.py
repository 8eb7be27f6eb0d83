"""When is which job worked on? One thread looks at all jobs whenever something has changed, and hands out what is next.

Invariants:
1. A job that exists is looked at: a watch says when, and every `look_interval_s` all jobs are read anew.
2. A guest is set free for its next job only when what the last one wrote is in the view.
3. A job that could not go on for now (the store away, a fault of ours) is taken up again after `RETRY_S`, and the
   others do not wait for it.
4. Finished jobs are removed once they are older than `job_kept_s`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from lochness import events, keys
from lochness.clock import Clock
from lochness.errors import ConflictError, LochnessError
from lochness.log import get_logger
from lochness.model.job import SELECT_HYPERVISOR, rfc3339
from lochness.store.protocol import Delete, KeyUnchanged, Store
from lochness.store.watching import Watching
from lochness_controller.scheduler.decide import BATCH_MAX
from lochness_controller.scheduler.shell import Scheduler
from lochness_controller.settings import ControllerSettings
from lochness_controller.workers.decide import KnownJob, Places, next_jobs
from lochness_controller.workers.holding import HeldJob, StoreAwayError
from lochness_controller.workers.job_runner import JobRunner
from lochness_controller.workers.pool import ThreadPool
from lochness_controller.workers.view import JobsView

RETRY_S: Final = 2.0
PRUNE_INTERVAL_S: Final = 60.0
_PRUNE_BATCH: Final = 100
_TICK_S: Final = 1.0

_log = get_logger("workers")


class Dispatcher:
    """Starts the work on jobs, as the controller `worker`, from `start` to `stop`."""

    def __init__(
        self,
        store: Store,
        view: JobsView,
        scheduler: Scheduler,
        runner: JobRunner,
        settings: ControllerSettings,
        clock: Clock,
        *,
        worker: str,
        workers_alive: Callable[[], Collection[str]],
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._view = view
        self._scheduler = scheduler
        self._runner = runner
        self._clock = clock
        self._worker = worker
        self._workers_alive = workers_alive
        self._stopping = stopping
        self._places = Places(settings.jobs_running, settings.jobs_running_per_hypervisor)
        self._job_kept = timedelta(seconds=settings.job_kept_s)
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._busy: dict[str, str] = {}  # guest -> its job's hypervisor
        self._not_before_s: dict[str, float] = {}  # guest -> monotonic
        self._is_placing = False
        self._next_prune_s = time.monotonic()
        #: time.monotonic() of the last look: a dispatcher that is stuck lets it grow old.
        self.looked_at_s = time.monotonic()
        self._pool = ThreadPool(settings.jobs_running + 1, "job")
        self._watching = Watching(
            store,
            keys.JOB_PATH,
            on_snapshot=view.take_snapshot,
            on_batch=view.take_batch,
            on_transition=_tell_transition,
            relist_s=settings.look_interval_s,
        )
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        view.on_change(lambda _ids: self.wake())

    def start(self) -> None:
        self._watching.start()
        self._thread.start()

    def stop(self, limit_s: float) -> None:
        """Hand out nothing any more. Jobs in progress stay in the store as they are; waits at most `limit_s`."""
        self._stopping.set()
        self._wake.set()
        closer = threading.Thread(target=self._watching.stop, name="watching-end", daemon=True)
        closer.start()
        self._thread.join(limit_s)
        closer.join(limit_s)

    def wake(self) -> None:
        """Look soon. May be called from any thread."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self.looked_at_s = time.monotonic()
            try:
                self._look()
                self._prune_if_due()
            except Exception:  # the pass boundary: the next look is the cure
                _log.exception(events.PASS_FAILED)
                self._stopping.wait(RETRY_S)
            self._wake.wait(_TICK_S)

    def _look(self) -> None:
        if not self._view.is_filled:
            return
        with self._lock:
            taken = next_jobs(
                self._view.unfinished(),
                {**self._resting(), **self._busy},
                worker=self._worker,
                workers_alive=self._workers_alive(),
                places=self._places,
            )
            waiting = [known for known in taken if known.job.action == SELECT_HYPERVISOR]
            batch = [] if self._is_placing else waiting[:BATCH_MAX]
            self._is_placing = self._is_placing or bool(batch)
            others = [known for known in taken if known.job.action != SELECT_HYPERVISOR]
            for known in (*batch, *others):
                self._busy[known.job.guest] = known.job.hypervisor
        if batch:
            self._pool.submit(partial(self._place, batch))
        for known in others:
            self._pool.submit(partial(self._work_on, known))

    def _resting(self) -> dict[str, str]:
        """The guests whose job was put off."""
        now_s = time.monotonic()
        self._not_before_s = {guest: at_s for guest, at_s in self._not_before_s.items() if at_s > now_s}
        return dict.fromkeys(self._not_before_s, "")

    def _place(self, batch: Sequence[KnownJob]) -> None:
        try:
            self._scheduler.place(batch)
        except LochnessError as error:
            _log.info(events.JOB_DELAYED, jobs=len(batch), error=error.message, reason=error.reason, retry_s=RETRY_S)
            self._put_off(batch)
        except Exception:  # the pass boundary: a fault of ours must not end the placing of others
            _log.exception(events.PASS_FAILED, jobs=len(batch))
            self._put_off(batch)
        with self._lock:
            self._is_placing = False
        self._free(batch)

    def _work_on(self, known: KnownJob) -> None:
        try:
            self._runner.run(HeldJob(self._store, self._view, known, self._stopping))
        except StoreAwayError as error:
            _log.info(events.JOB_DELAYED, job=known.job.id, error=str(error), retry_s=RETRY_S)
            self._put_off((known,))
        except Exception:  # the pass boundary: one job's fault must not end the thread
            _log.exception(events.PASS_FAILED, job=known.job.id, guest=known.job.guest)
            self._put_off((known,))
        self._free((known,))

    def _put_off(self, batch: Sequence[KnownJob]) -> None:
        with self._lock:
            for known in batch:
                self._not_before_s[known.job.guest] = time.monotonic() + RETRY_S

    def _free(self, batch: Sequence[KnownJob]) -> None:
        with self._lock:
            for known in batch:
                self._busy.pop(known.job.guest, None)
        self.wake()

    def _prune_if_due(self) -> None:
        if time.monotonic() < self._next_prune_s or not self._view.is_filled:
            return
        self._next_prune_s = time.monotonic() + PRUNE_INTERVAL_S
        old = prunable(self._view.jobs(), self._clock.now() - self._job_kept)
        for start in range(0, len(old), _PRUNE_BATCH):
            batch = old[start : start + _PRUNE_BATCH]
            names = [keys.job(known.job.id) for known in batch]
            compares = [KeyUnchanged(name, known.mod_revision) for name, known in zip(names, batch, strict=True)]
            try:
                self._store.commit(compares, [Delete(name) for name in names])
            except ConflictError:
                return  # another controller prunes
            except LochnessError as error:
                _log.info(events.JOB_DELAYED, jobs=len(batch), error=error.message, reason=error.reason)
                return
            _log.info(events.JOBS_PRUNED, jobs=len(batch))


def prunable(jobs: Sequence[KnownJob], before: datetime) -> list[KnownJob]:
    """The jobs that were finished before that time."""
    limit = rfc3339(before)
    return [known for known in jobs if known.job.is_finished and known.job.finished_at < limit]


def _tell_transition(event: str, fields: Mapping[str, object]) -> None:
    if event == events.WATCH_RECOVERED:
        _log.info(event, **fields)
    elif event == events.PASS_FAILED:
        _log.error(event, **fields)
    else:
        _log.warning(event, **fields)
