"""When is which job worked on? One event loop, told of every change by a watch, hands out what is next.

Invariants:
1. A job that exists is looked at: a watch says when, and every `look_interval_s` all jobs are read anew.
2. A guest is set free for its next job only when what the last one wrote is in the view.
3. A job that could not go on for now (the store away, a fault of ours) is taken up again after `RETRY_S`, and the
   others do not wait for it. A job that waits, for an agent or for anything else, holds no thread.
4. A fault of ours ends the job that meets it, after `FAULTS_MAX` tries; the jobs of its batch are placed all the same.
5. A job that is not begun within `line_limit_s` ends with an error that says so, and a request to cancel is heeded
   wherever the job stands.
6. The work for a change is in proportion to the change, not to the number of jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from lochness import events, keys
from lochness.clock import Clock
from lochness.errors import DeadlineError, LochnessError
from lochness.log import get_logger
from lochness.store.protocol import Store
from lochness.store.watching import Watching
from lochness_controller.group_commit import GroupCommit
from lochness_controller.group_read import GroupRead
from lochness_controller.scheduler.shell import Scheduler
from lochness_controller.settings import ControllerSettings
from lochness_controller.workers.agent_calls import AgentCalls
from lochness_controller.workers.decide import KnownJob, Line, Places
from lochness_controller.workers.gates import Gates
from lochness_controller.workers.holding import CancelRequestedError, HeldJob, StoreAwayError
from lochness_controller.workers.job_runner import FaultError, JobRunner
from lochness_controller.workers.retention import Retention
from lochness_controller.workers.view import JobsView

RETRY_S: Final = 2.0
#: So many faults of ours in a row end a job.
FAULTS_MAX: Final = 5
TICK_S: Final = 1.0
#: The store's calls of all jobs are made on so many threads.
STORE_THREADS: Final = 32
_START_LIMIT_S: Final = 10.0

_log = get_logger("workers")


class Dispatcher:
    """Starts the work on jobs, as the controller `worker`, from `start` to `stop`."""

    def __init__(
        self,
        store: Store,
        view: JobsView,
        scheduler: Scheduler,
        settings: ControllerSettings,
        clock: Clock,
        *,
        worker: str,
        workers_alive: Callable[[], Collection[str]],
        is_leader: Callable[[], bool],
    ) -> None:
        self._store = store
        self._view = view
        self._scheduler = scheduler
        self._settings = settings
        self._clock = clock
        self._worker = worker
        self._workers_alive = workers_alive
        self._is_leader = is_leader
        places = Places(settings.jobs_running, settings.jobs_running_per_hypervisor)
        self._line = Line(worker, places, stale_s=settings.lease_ttl_s)
        self._retention = Retention(store, view, settings, clock)
        self._held: dict[str, HeldJob | None] = {}  # job -> in whose hands; None: the scheduler's
        self._faults: dict[str, list[FaultError]] = {}  # job -> faults of ours in a row
        self._news: deque[str] = deque()
        self._is_told = False
        self._have_workers_changed = True
        self._is_placing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="job")
        self._reads, self._commits = GroupRead(store, self._threads), GroupCommit(store, self._threads)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake_up: asyncio.Event | None = None
        self._is_stopping = False
        self._started = threading.Event()
        #: time.monotonic() of the last look: a dispatcher that is stuck lets it grow old.
        self.looked_at_s = time.monotonic()
        self._watching = Watching(
            store,
            keys.JOB_PATH,
            on_snapshot=view.take_snapshot,
            on_batch=view.take_batch,
            on_transition=_tell_transition,
            relist_s=settings.look_interval_s,
        )
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        view.on_change(self._hear)

    def start(self) -> None:
        self._scheduler.start()
        self._thread.start()
        self._started.wait(_START_LIMIT_S)
        self._watching.start()

    def stop(self, limit_s: float) -> None:
        """Hand out nothing any more. Jobs in progress stay in the store as they are; waits at most `limit_s`."""
        self._is_stopping = True
        self._call_soon()
        ends = (self._watching.stop, self._scheduler.stop)
        closers = [threading.Thread(target=end, name="watching-end", daemon=True) for end in ends]
        for closer in closers:
            closer.start()
        self._thread.join(limit_s)
        for closer in closers:
            closer.join(limit_s)

    def workers_changed(self) -> None:
        """Controllers have come or gone. May be called from any thread."""
        self._have_workers_changed = True
        self._call_soon()

    # Called on the threads that learn of jobs.

    def _hear(self, job_ids: Iterable[str]) -> None:
        self._news.extend(job_ids)
        if not self._is_told:
            self._is_told = True
            self._call_soon()

    def _call_soon(self) -> None:
        loop, wake_up = self._loop, self._wake_up
        if loop is not None and wake_up is not None:
            with contextlib.suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(wake_up.set)

    # All below runs on the dispatcher's event loop.

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._wake_up = asyncio.get_running_loop(), asyncio.Event()
        self._gates = Gates(self._line.set_slow)
        calls = AgentCalls(timeout_s=self._settings.agent_timeout_s, access=self._settings.agent_access)
        self._runner = JobRunner(calls, self._gates, self._settings, self._clock, self._worker)
        self._started.set()
        self._begin(self._tick())
        self._wake_up.set()
        while not self._is_stopping:
            await self._wake_up.wait()
            self._wake_up.clear()
            self.looked_at_s = time.monotonic()
            try:
                self._look()
            except Exception:  # the pass boundary: the next look is the cure
                _log.exception(events.PASS_FAILED)
                await asyncio.sleep(RETRY_S)
                self._wake_up.set()
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await calls.close()

    async def _tick(self) -> None:
        """What happens by the clock and not because of a change."""
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            self._line.adopt_stale(now_s)
            for known in self._line.too_long(now_s, self._settings.line_limit_s):
                self._end(known, self._waited_too_long(known))
            if self._is_leader() and self._retention.is_due():
                self._begin(self._prune())
            assert self._wake_up is not None
            self._wake_up.set()

    def _look(self) -> None:
        """Take in what has changed, and begin what can begin."""
        now_s = time.monotonic()
        if self._have_workers_changed:
            self._have_workers_changed = False
            self._line.set_workers(self._workers_alive(), is_leader=self._is_leader())
        self._is_told = False
        while self._news:
            self._learn(self._news.popleft(), now_s)
        for known in self._line.take():
            held = self._hold(known)
            self._begin(self._work_on(held))
        if not self._is_placing and (batch := self._line.take_waiting(self._scheduler.batch_max)):
            self._is_placing = True
            self._held |= dict.fromkeys((known.job.id for known in batch), None)
            self._begin(self._place(batch))

    def _learn(self, job_id: str, now_s: float) -> None:
        known = self._view.known(job_id)
        if job_id in self._held:
            held = self._held[job_id]
            if held is not None and known is not None:
                held.notice(known)
        elif known is None:
            self._line.drop(job_id)
        elif known.job.is_cancel_requested and not known.job.is_finished and self._line.is_ours(known.job):
            self._end(known, CancelRequestedError(f"cancelled before {known.job.action} was begun, as requested"))
        else:
            self._line.put(known, now_s)

    def _end(self, known: KnownJob, why: LochnessError) -> None:
        """Let a job that is not worked on fail."""
        if known.job.id not in self._held:
            self._line.drop(known.job.id)
            held = self._hold(known)
            self._begin(self._fail(held, why))

    def _hold(self, known: KnownJob) -> HeldJob:
        held = self._held[known.job.id] = HeldJob(self._view, known, self._reads, self._commits)
        return held

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _place(self, batch: Sequence[KnownJob]) -> None:
        ends = dict.fromkeys((known.job.id for known in batch), await self._placed(batch))
        if len(batch) > 1 and isinstance(ends[batch[0].job.id], FaultError):  # one of them: the others must not suffer
            ends = {known.job.id: await self._placed([known]) for known in batch}
        self._is_placing = False
        for known in batch:
            end = ends[known.job.id]
            self._let_go(known, is_put_off=end is not None and not isinstance(end, FaultError))
            if isinstance(end, FaultError):
                self._end(self._view.known(known.job.id) or known, end)

    async def _placed(self, batch: Sequence[KnownJob]) -> LochnessError | None:
        """What stood in the way of having them placed or refused; a FaultError is one of ours."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._scheduler.place, batch)
        except LochnessError as error:
            _log.info(events.JOB_DELAYED, jobs=len(batch), error=error.message, reason=error.reason, retry_s=RETRY_S)
            return error
        except Exception as error:  # the pass boundary
            _log.exception(events.PASS_FAILED, jobs=len(batch))
            return FaultError(error)
        return None

    async def _work_on(self, held: HeldJob) -> None:
        self._let_go(held.known, await self._is_put_off(held, self._runner.run(held)))

    async def _fail(self, held: HeldJob, why: LochnessError) -> None:
        if await self._is_put_off(held, self._runner.run(held, ended_by=why)):
            await asyncio.sleep(RETRY_S)
        del self._held[held.job.id]
        self._hear((held.job.id,))

    async def _is_put_off(self, held: HeldJob, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the job is to be tried again later."""
        try:
            await work
        except StoreAwayError as error:
            _log.info(events.JOB_DELAYED, job=held.job.id, error=str(error), retry_s=RETRY_S)
            return True
        except Exception as error:  # the pass boundary: one job's fault must not end the others
            _log.exception(events.PASS_FAILED, job=held.job.id, guest=held.job.guest)
            self._faults.setdefault(held.job.id, []).append(FaultError(error))
            return True
        self._faults.pop(held.job.id, None)
        return False

    def _let_go(self, known: KnownJob, is_put_off: bool) -> None:
        """The job is in nobody's hands any more; what it wrote is in the view."""
        job, now_s = known.job, time.monotonic()
        del self._held[job.id]
        self._learn(job.id, now_s)
        self._line.free(job.guest, now_s, is_resting=is_put_off)
        if len(faults := self._faults.get(job.id, [])) >= FAULTS_MAX:
            self._line.wake(job.guest, now_s)
            self._end(self._view.known(job.id) or known, faults[-1])
        elif is_put_off:
            asyncio.get_running_loop().call_later(RETRY_S, self._rouse, job.guest)
        self._call_soon()

    def _rouse(self, guest: str) -> None:
        self._line.wake(guest, time.monotonic())
        self._call_soon()

    async def _prune(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._retention.prune)

    def _waited_too_long(self, known: KnownJob) -> DeadlineError:
        job, limit_s = known.job, self._settings.line_limit_s
        where = f" on hypervisor {job.hypervisor}" if job.hypervisor else ""
        return DeadlineError(
            f"{job.action}{where} was not begun within {limit_s:g} s (line_limit_s): {self._line.running} jobs are "
            f"worked on, {len(self._line)} are in the line",
            limit_s=limit_s,
        )


def _tell_transition(event: str, fields: Mapping[str, object]) -> None:
    if event == events.WATCH_RECOVERED:
        _log.info(event, **fields)
    elif event == events.PASS_FAILED:
        _log.error(event, **fields)
    else:
        _log.warning(event, **fields)
