"""How do waiting guests get their places? Read a snapshot, decide, commit, and decide anew what others were faster at.

Invariants:
1. One snapshot in, one transaction out: all of a batch is placed, or none of it.
2. After `BATCH_ATTEMPTS_MAX` conflicts each guest is placed by itself; after `SINGLE_ATTEMPTS_MAX` more its job fails.
3. A commit whose outcome is not known is followed by a new snapshot, which shows what became of it.

Not guaranteed: an order among guests of different batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from lochness import events, keys
from lochness.candidate_plugins import CONTROLLER_CANDIDATE_FUNCTIONS
from lochness.clock import Clock
from lochness.errors import AmbiguousWriteError, ConflictError, LochnessError, ValidationError
from lochness.log import get_logger
from lochness.model.guest import GuestRecord
from lochness.model.job import JobRecord
from lochness.placement.candidates import CandidateFunction
from lochness.placement.cluster import CLUSTER_SELECTORS, ClusterView, cluster_view
from lochness.placement.decide import Placement, Refused
from lochness.store.protocol import Key, KeyValue, Store
from lochness.transactions import joined, update_job
from lochness_controller.scheduler.decide import BATCH_MAX, Outcome, WaitingJob, decide, is_waiting
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.transitions import failed
from lochness_controller.workers.view import JobsView

BATCH_ATTEMPTS_MAX: Final = 3
SINGLE_ATTEMPTS_MAX: Final = 10

_log = get_logger("scheduler")


class Scheduler:
    """Places the guests of waiting jobs, as the controller `worker`."""

    #: How many jobs the dispatcher hands over at a time.
    batch_max = BATCH_MAX

    def __init__(
        self,
        store: Store,
        view: JobsView,
        clock: Clock,
        *,
        worker: str,
        workers_alive: Callable[[], Collection[str]],
        functions: Sequence[CandidateFunction] = CONTROLLER_CANDIDATE_FUNCTIONS,
        domain: str = "",
    ) -> None:
        self._store = store
        self._view = view
        self._clock = clock
        self._worker = worker
        self._workers_alive = workers_alive
        self._functions = tuple(functions)
        self._domain = domain

    def place(self, batch: Sequence[KnownJob]) -> None:
        """Give every guest of `batch` (at most BATCH_MAX jobs) a place or its job an error; `view` knows the outcome.

        Raises UnavailableError: the store was not reached, and the jobs that are still waiting are for a later try.
        """
        assert len(batch) <= BATCH_MAX  # the dispatcher's promise
        if self._attempt(batch, BATCH_ATTEMPTS_MAX) is None:
            return
        for known in batch:
            conflict = self._attempt([known], SINGLE_ATTEMPTS_MAX)
            if conflict is not None:
                self._give_up(known, conflict)

    def _attempt(self, batch: Sequence[KnownJob], attempts_max: int) -> LochnessError | None:
        """None when none of the jobs waits any longer, else what stood in the way of the last attempt."""
        problem: LochnessError | None = None
        for _ in range(attempts_max):
            view, waiting = self._snapshot(batch)
            if not waiting:
                return None
            now = self._clock.now()
            outcomes = decide(view, waiting, self._functions, worker=self._worker, now=now, domain=self._domain)
            try:
                revision = joined(outcome.transaction for outcome in outcomes).commit(self._store)
            except (ConflictError, AmbiguousWriteError) as error:
                _log.info(events.PLACEMENT_CONFLICTED, jobs=len(waiting), error=error.message, reason=error.reason)
                problem = error
                continue
            for each, outcome in zip(waiting, outcomes, strict=True):
                self._view.learn(outcome.job, revision, each.job_create_revision)
                _tell(outcome)
            return None
        return problem

    def _snapshot(self, batch: Sequence[KnownJob]) -> tuple[ClusterView, list[WaitingJob]]:
        """The cluster and those of the jobs that still wait, with their guests, all at one revision."""
        reading = self._store.read(
            *CLUSTER_SELECTORS,
            *(Key(keys.job(known.job.id)) for known in batch),
            *(Key(keys.guest(known.job.guest)) for known in batch),
        )
        first = len(CLUSTER_SELECTORS)
        alive = self._workers_alive()
        waiting: list[WaitingJob] = []
        for index, known in enumerate(batch):
            job_item, guest_item = reading.one(first + index), reading.one(first + len(batch) + index)
            if job_item is None:
                self._view.forget(known.job.id, reading.revision)
                continue
            job = JobRecord.from_json(job_item.value)
            if is_waiting(job, self._worker, alive):
                waiting.append(_waiting(job, job_item, guest_item))
            else:
                self._view.learn(job, job_item.mod_revision, job_item.create_revision)
        return cluster_view(reading.revision, reading.ranges[:first]), waiting

    def _give_up(self, known: KnownJob, conflict: LochnessError) -> None:
        item = self._store.read(Key(keys.job(known.job.id))).one()
        if item is None:
            return
        text = (
            f"no place after {BATCH_ATTEMPTS_MAX + SINGLE_ATTEMPTS_MAX} attempts, others were faster each time: "
            f"{conflict.message}"
        )
        job = failed(JobRecord.from_json(item.value), text, "placement_contended", self._clock.now())
        try:
            revision = update_job(job, item.mod_revision).commit(self._store)
        except (ConflictError, AmbiguousWriteError):
            return  # somebody has moved it; the watch brings it, and the dispatcher looks again
        self._view.learn(job, revision, item.create_revision)


def _waiting(job: JobRecord, job_item: KeyValue, guest_item: KeyValue | None) -> WaitingJob:
    guest, problem = None, f"guest {job.guest} does not exist any more"
    if guest_item is not None:
        try:
            guest = GuestRecord.from_json(guest_item.value)
        except ValidationError as error:  # one bad record must not stand in the way of a batch
            problem = f"the record of guest {job.guest} can not be read: {error.message}"
    guest_revision = guest_item.mod_revision if guest_item else 0
    return WaitingJob(job, job_item.mod_revision, job_item.create_revision, guest, guest_revision, problem)


def _tell(outcome: Outcome) -> None:
    log = _log.bind(job=outcome.job.id, guest=outcome.job.guest)
    match outcome.decision:
        case Placement() as placement:
            log.info(events.GUEST_PLACED, hypervisor=placement.hypervisor, subnet=placement.subnet, ip=placement.ip)
        case Refused() as refused:
            log.warning(events.PLACEMENT_REFUSED, error=refused.message, reason=refused.reason)
