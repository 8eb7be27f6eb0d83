"""How do waiting guests get their places? Decide on the cluster in memory, commit many at a time, learn from conflicts.

Invariants:
1. Each transaction places its guests wholly or not at all, and its compares hold whatever the view had missed.
2. While transactions are under way the next ones are decided; what is decided counts what those are about to take.
3. Of a transaction that conflicts only the guests are decided anew whose own compares failed, after their hypervisors
   and addresses were read anew; each at most `ATTEMPTS_MAX` times, then its job fails.
4. No guest is refused on a view that may have missed what came before its job: the view waits until it has seen the
   job's own revision, and where it does not come to that in time everything is read anew first.
5. Nobody is refused for a heartbeat that is missing while the store has just been away: its job waits.
6. A commit whose outcome is not known is followed by reading its jobs and guests, which show what became of it.

Not guaranteed: an order among guests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from lochness import events, keys
from lochness.candidate_plugins import CONTROLLER_CANDIDATE_FUNCTIONS
from lochness.clock import Clock
from lochness.errors import AmbiguousWriteError, ConflictError, LochnessError, UnavailableError, ValidationError
from lochness.log import Logger, get_logger
from lochness.model.guest import GuestRecord
from lochness.model.job import JobRecord
from lochness.placement.candidates import HEARTBEAT_MISSING, CandidateFunction
from lochness.placement.chooser import Chooser
from lochness.placement.decide import Placement, Refused
from lochness.store.protocol import MAX_TRANSACTION_OPS, Key, KeyValue, Store
from lochness.transactions import update_job
from lochness_controller.scheduler.decide import BATCH_MAX, Bundle, Decided, Waiting, bundle, decide, is_waiting
from lochness_controller.scheduler.live import SETTLE_S, LiveCluster
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.transitions import failed
from lochness_controller.workers.view import JobsView

ATTEMPTS_MAX: Final = 13
#: How many guests are decided at a time: the store must not run out of work meanwhile; and how few of them wait for
#: their transaction when the next are decided: the more there are, the more of one hypervisor go together.
CHUNK_MAX: Final = 100
DECIDED_LOW: Final = 300
#: How many transactions are under way at once: the store syncs several to its disk at a time.
UNDER_WAY_MAX: Final = 4
#: How many guests are read at once, each with its job: two keys.
READ_MAX: Final = MAX_TRANSACTION_OPS // 2

_log = get_logger("scheduler")


class UnsettledError(UnavailableError):
    """The store has just been away, and heartbeats are missing that may be back in a moment."""

    reason = "heartbeats_unsettled"


class Scheduler:
    """Places the guests of waiting jobs, as the controller `worker`.

    `domain`: see `lochness.placement.decide.decide_one`.
    """

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
        self.live = LiveCluster(store)
        self._chooser = Chooser(self.live.fleet, functions, domain=domain)

    def start(self) -> None:
        """Follow the cluster. Without it every `place` reads the cluster anew."""
        self.live.start()

    def stop(self) -> None:
        self.live.stop()

    def place(self, batch: Sequence[KnownJob]) -> None:
        """Give every guest of `batch` a place or its job an error; the jobs' view knows the outcome.

        Call it from one thread at a time. Raises UnavailableError: the store was not reached, and the jobs that are
        still waiting are for a later try. UnsettledError: some wait for heartbeats, too.
        """
        if not self.live.is_current:
            self.live.reload()
        _Placing(self, batch).run()


class _Placing:
    """One batch on its way."""

    def __init__(self, scheduler: Scheduler, batch: Sequence[KnownJob]) -> None:
        self._of = scheduler
        self._live = scheduler.live
        self._fleet = scheduler.live.fleet
        self._fresh = deque((known, 0) for known in batch)
        self._decided: list[Decided] = []
        self._under_way: deque[tuple[Bundle, Callable[[], int]]] = deque()
        self._unsettled = 0

    def run(self) -> None:
        problem: LochnessError | None = None
        try:
            while self._under_way or (problem is None and (self._fresh or self._decided)):
                try:
                    self._go_on(may_begin=problem is None)
                except LochnessError as error:
                    problem = problem or error  # what is under way goes on to its end, nothing more begins
        finally:
            self._give_back(self._decided)
            for sent, _ in self._under_way:  # only after a fault of ours
                self._give_back(decided for decided, _ in sent.parts)
        if problem is not None:
            raise problem
        if self._unsettled:
            raise UnsettledError(
                f"etcd has just been away, and {self._unsettled} guests find no place while heartbeats are missing: "
                f"they wait up to {SETTLE_S:g} s for the hypervisors to beat again"
            )

    def _go_on(self, *, may_begin: bool) -> None:
        if may_begin and self._fresh and len(self._decided) < DECIDED_LOW:
            self._decide_more()
        if not (may_begin and self._send()):
            self._finish_oldest()

    def _decide_more(self) -> None:
        taken = [self._fresh.popleft() for _ in range(min(CHUNK_MAX, len(self._fresh)))]
        waiting = self._waiting_of(taken)
        decided, seen = self._decide(waiting)
        refused = [each.waiting for each in decided if isinstance(each.decision, Refused)]
        newest = max((each.known.create_revision for each in refused), default=0)
        if newest > seen:  # decided on what may have missed something, whatever has come since
            if not self._live.has_seen(newest):
                self._live.reload()
            again = iter(self._decide(refused)[0])
            decided = [next(again) if isinstance(each.decision, Refused) else each for each in decided]
        if self._live.is_settling:
            settled = [each for each in decided if not _lacks_heartbeats(each)]
            self._unsettled += len(decided) - len(settled)
            decided = settled
        # Guests of one hypervisor share compares: side by side, more of them go into one transaction.
        self._decided = sorted(self._decided + decided, key=_hypervisor_of)

    def _decide(self, waiting: Sequence[Waiting]) -> tuple[list[Decided], int]:
        """What is decided, and up to which revision nothing can be missing from what it was decided on."""
        with self._live.lock:
            return decide(waiting, self._fleet, self._of._chooser.choose), self._live.seen

    def _waiting_of(self, taken: Sequence[tuple[KnownJob, int]]) -> list[Waiting]:
        """Those that still wait, with their guests."""
        of = self._of
        alive = of._workers_alive()
        waiting, unread = [], []
        for known, attempt in taken:
            new = None if attempt else self._live.pop_new_guest(known.job.guest)
            if new is None:
                unread.append((known, attempt))
            elif is_waiting(known.job, of._worker, alive):
                waiting.append(_waiting(known, new, attempt))
        for start in range(0, len(unread), READ_MAX):
            waiting += self._read(unread[start : start + READ_MAX])
        return waiting

    def _read(self, taken: Sequence[tuple[KnownJob, int]]) -> list[Waiting]:
        """Those that still wait, with their guests. Jobs are read as well from the second attempt on."""
        of = self._of
        again = [known for known, attempt in taken if attempt]
        reading = of._store.read(
            *(Key(keys.guest(known.job.guest)) for known, _ in taken), *(Key(keys.job(known.job.id)) for known in again)
        )
        alive = of._workers_alive()
        found = dict(zip((known.job.id for known in again), reading.ranges[len(taken) :], strict=True))
        waiting = []
        for (known, attempt), guests in zip(taken, reading.ranges[: len(taken)], strict=True):
            now_known: KnownJob | None = known
            if attempt:
                items = found[known.job.id]
                now_known = _known(items[0]) if items else None
                if now_known is None:
                    of._view.forget(known.job.id, reading.revision)
                    continue
                of._view.learn(now_known.job, now_known.mod_revision, now_known.create_revision)
            if now_known is not None and is_waiting(now_known.job, of._worker, alive):
                waiting.append(_waiting(now_known, guests[0] if guests else None, attempt))
        return waiting

    def _send(self) -> bool:
        """Begin one more transaction, if there is one and room for it."""
        if not self._decided or len(self._under_way) >= UNDER_WAY_MAX:
            return False
        under_way = frozenset[str]().union(*(sent.claims for sent, _ in self._under_way))
        of = self._of
        with self._live.lock:
            sending, self._decided = bundle(
                self._decided, under_way, self._fleet, worker=of._worker, now=of._clock.now()
            )
        if not sending.parts:
            return False
        if not (self._decided or self._fresh or self._under_way):
            self._finish(sending, lambda: sending.transaction.commit(of._store))  # some 0.1 ms faster for a lone one
            return True
        try:
            self._under_way.append((sending, sending.transaction.begin(of._store)))
        except BaseException:
            self._give_back(decided for decided, _ in sending.parts)
            raise
        return True

    def _finish_oldest(self) -> None:
        if self._under_way:
            self._finish(*self._under_way.popleft())

    def _finish(self, sent: Bundle, result: Callable[[], int]) -> None:
        try:
            revision = result()
        except (ConflictError, AmbiguousWriteError) as error:
            _log.info(events.PLACEMENT_CONFLICTED, jobs=len(sent.parts), error=error.message, reason=error.reason)
            self._learn_from(sent, error)
        except BaseException:
            self._give_back(decided for decided, _ in sent.parts)
            raise
        else:
            with self._live.lock:
                for decided, _ in sent.parts:
                    if decided.placement is not None:
                        self._fleet.settle(decided.placement, revision)
            log = _log.bind()
            for decided, job in sent.parts:
                self._of._view.learn(job, revision, decided.waiting.known.create_revision)
                _tell(log, decided, job)

    def _learn_from(self, sent: Bundle, error: ConflictError | AmbiguousWriteError) -> None:
        """Decide anew what the conflict was about, the rest stays decided."""
        failed_keys = frozenset(error.keys) if isinstance(error, ConflictError) else frozenset()
        conflicted = [decided for decided, _ in sent.parts if failed_keys & _keys_of(decided)]
        conflicted = conflicted or [decided for decided, _ in sent.parts]
        anew = {decided.waiting.known.job.id for decided in conflicted}
        kept = [decided for decided, _ in sent.parts if decided.waiting.known.job.id not in anew]
        self._give_back(conflicted)
        self._decided = kept + self._decided
        placements = [decided.placement for decided in conflicted if decided.placement is not None]
        if any(placement.guest.group for placement in placements):
            self._live.reload()  # where the group's other guests are is known from all bindings
        self._live.reread(
            (placement.hypervisor for placement in placements),
            ((placement.subnet, placement.ip) for placement in placements),
        )
        for decided in conflicted:
            waiting = decided.waiting
            if waiting.attempt + 1 >= ATTEMPTS_MAX:
                self._give_up(waiting.known, error)
            else:
                self._fresh.appendleft((waiting.known, waiting.attempt + 1))

    def _give_back(self, decided: Iterable[Decided]) -> None:
        with self._live.lock:
            for each in decided:
                if each.placement is not None:
                    self._fleet.give_back(each.placement)

    def _give_up(self, known: KnownJob, conflict: LochnessError) -> None:
        of = self._of
        item = of._store.read(Key(keys.job(known.job.id))).one()
        now_known = _known(item) if item else None
        if item is None or now_known is None or not is_waiting(now_known.job, of._worker, of._workers_alive()):
            return
        text = f"no place after {ATTEMPTS_MAX} attempts, others were faster each time: {conflict.message}"
        job = failed(now_known.job, text, "placement_contended", of._clock.now())
        try:
            revision = update_job(job, item.mod_revision).commit(of._store)
        except (ConflictError, AmbiguousWriteError):
            return  # somebody has moved it; the watch brings it, and the dispatcher looks again
        of._view.learn(job, revision, item.create_revision)


def _known(item: KeyValue) -> KnownJob | None:
    try:
        return KnownJob(JobRecord.from_json(item.value), item.mod_revision, item.create_revision)
    except ValidationError:
        return None


def _waiting(known: KnownJob, item: KeyValue | None, attempt: int) -> Waiting:
    if item is None:
        return Waiting(known, None, 0, attempt, f"guest {known.job.guest} does not exist any more")
    try:
        return Waiting(known, GuestRecord.from_json(item.value), item.mod_revision, attempt)
    except ValidationError as error:  # one bad record must not stand in the way of a batch
        problem = f"the record of guest {known.job.guest} can not be read: {error.message}"
        return Waiting(known, None, item.mod_revision, attempt, problem)


def _lacks_heartbeats(decided: Decided) -> bool:
    """Whether it was refused, and hypervisors were passed over for their missing heartbeats."""
    decision = decided.decision
    return isinstance(decision, Refused) and any(HEARTBEAT_MISSING in entry.reasons for entry in decision.tally)


def _hypervisor_of(decided: Decided) -> str:
    return decided.placement.hypervisor if decided.placement is not None else ""


def _keys_of(decided: Decided) -> frozenset[str]:
    """What a conflict about this one names."""
    job = decided.waiting.known.job
    names = {keys.job(job.id), keys.guest(job.guest)}
    placement = decided.placement
    if placement is not None:
        names |= {
            keys.hypervisor_guests(placement.hypervisor),
            keys.hypervisor_subnet(placement.hypervisor, placement.subnet),
            keys.subnet_address(placement.subnet, placement.ip),
        }
        if placement.guest.group:
            names.add(keys.group(placement.guest.group))
    return frozenset(names)


def _tell(log: Logger, decided: Decided, job: JobRecord) -> None:
    match decided.decision:
        case Placement(hypervisor=hypervisor, subnet=subnet, ip=ip):
            log.info(events.GUEST_PLACED, job=job.id, guest=job.guest, hypervisor=hypervisor, subnet=subnet, ip=ip)
        case Refused(message=message, reason=reason):
            log.warning(events.PLACEMENT_REFUSED, job=job.id, guest=job.guest, error=message, reason=reason)
