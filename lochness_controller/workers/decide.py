"""Which jobs are taken up now? A line of all unfinished jobs that knows at any moment who is next. Pure.

Invariants:
1. At most one job of a guest is worked on at a time, the oldest unfinished one first.
2. A job that another running controller works on is left to it, and so are the later jobs of that guest. A job that
   nobody works on is the leader's; one that it has left lying for `stale_s` is anybody's.
3. Hypervisors take turns, each with at most `per_hypervisor` jobs; a slow one gets one at a time, and what is worked on
   there takes none of the `running` places of the others.
4. Every call costs what it changes, never what is in the line: no pass over all jobs.

Not guaranteed: an order among the jobs of different guests, beyond that none is forgotten.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from lochness.model.job import SELECT_HYPERVISOR, JobRecord

#: Where jobs wait that need a hypervisor first; no hypervisor's id.
_PLACING: Final = "select"


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job as last seen in the store. Jobs were created in the order of `create_revision`."""

    job: JobRecord
    mod_revision: int
    create_revision: int

    @property
    def age(self) -> tuple[int, str]:
        """Orders jobs from the oldest to the youngest."""
        return (self.create_revision, self.job.id)


@dataclass(frozen=True, slots=True)
class Places:
    """How many jobs may be worked on at a time."""

    running: int
    per_hypervisor: int


class Line:
    """The unfinished jobs, as the controller `worker` sees them. Times are monotonic seconds."""

    def __init__(self, worker: str, places: Places, *, stale_s: float) -> None:
        self._worker = worker
        self._places = places
        self._stale_s = stale_s
        self._alive: frozenset[str] = frozenset({worker})
        self._is_leader = False
        self._jobs: dict[str, KnownJob] = {}
        self._of_guest: dict[str, list[KnownJob]] = {}
        self._since_s: dict[str, float] = {}  # job -> when it came; those begun are taken out
        self._busy: dict[str, str] = {}  # guest -> its job's hypervisor, or _PLACING
        self._resting: set[str] = set()
        self._place_of: dict[str, str] = {}  # guest -> where its oldest job stands ready
        self._ready: dict[str, dict[str, None]] = {}  # hypervisor, or _PLACING -> guests
        self._able: dict[str, None] = {}  # hypervisors with something ready and room for it
        self._foreign: dict[str, None] = {}  # guests whose oldest job another controller works on
        self._leaders: dict[str, float] = {}  # guests whose oldest job is left to the leader -> since
        self._running: Counter[str] = Counter()
        self._slow: set[str] = set()
        self._counted = 0

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def running(self) -> int:
        """How many jobs are worked on, those that are being placed aside."""
        return self._running.total()

    def set_workers(self, alive: Collection[str], *, is_leader: bool) -> None:
        """Which controllers are running, and whether new jobs are ours."""
        self._alive = frozenset(alive) | {self._worker}
        self._is_leader = is_leader
        for guest in (*self._foreign, *self._leaders):
            self._consider(guest, self._leaders.get(guest, 0.0))

    def put(self, known: KnownJob, now_s: float) -> None:
        """The job is as `known` says."""
        job, before = known.job, self._jobs.get(known.job.id)
        if job.is_finished:
            self.drop(job.id)
            return
        of_guest = self._of_guest.setdefault(job.guest, [])
        if before is None:
            self._since_s[job.id] = now_s
        else:
            of_guest.remove(before)
        insort(of_guest, known, key=lambda each: each.age)
        self._jobs[job.id] = known
        self._consider(job.guest, now_s)

    def drop(self, job_id: str) -> None:
        """The job has ended or is gone."""
        known = self._jobs.pop(job_id, None)
        if known is None:
            return
        self._since_s.pop(job_id, None)
        of_guest = self._of_guest[known.job.guest]
        of_guest.remove(known)
        if not of_guest:
            del self._of_guest[known.job.guest]
        self._consider(known.job.guest, 0.0)

    def is_ours(self, job: JobRecord) -> bool:
        """Whether this controller may work on the job."""
        if job.worker == "":
            return self._is_leader
        return job.worker == self._worker or job.worker not in self._alive

    def take(self) -> Iterator[KnownJob]:
        """The jobs to begin now, one after the other; each one's guest is busy until `free`."""
        while self._able and self._counted < self._places.running:
            hypervisor = next(iter(self._able))
            guest = next(iter(self._ready[hypervisor]))
            self._leave(guest)
            self._busy[guest] = hypervisor
            self._running[hypervisor] += 1
            self._counted += hypervisor not in self._slow
            self._able.pop(hypervisor, None)  # to the end of the row
            self._look_at(hypervisor)
            yield self._begun(guest)

    def take_waiting(self, limit: int) -> list[KnownJob]:
        """At most `limit` jobs that wait for a hypervisor, the oldest first; their guests are busy until `free`."""
        waiting = self._ready.get(_PLACING, {})
        guests = [guest for guest, _ in zip(waiting, range(limit), strict=False)]
        for guest in guests:
            self._leave(guest)
            self._busy[guest] = _PLACING
        return [self._begun(guest) for guest in guests]

    def free(self, guest: str, now_s: float, *, is_resting: bool = False) -> None:
        """Nobody works on the guest's job any more. `is_resting`: nobody is to until `wake`."""
        hypervisor = self._busy.pop(guest, _PLACING)
        if hypervisor != _PLACING:
            self._running[hypervisor] -= 1
            self._counted -= hypervisor not in self._slow
            if not self._running[hypervisor]:
                del self._running[hypervisor]
            self._look_at(hypervisor)
        if is_resting:
            self._resting.add(guest)
        self._consider(guest, now_s)

    def wake(self, guest: str, now_s: float) -> None:
        """A guest that rests rests no more."""
        self._resting.discard(guest)
        self._consider(guest, now_s)

    def set_slow(self, hypervisor: str, is_slow: bool) -> None:
        """The hypervisor's agent does not answer, or does again."""
        if is_slow == (hypervisor in self._slow):
            return
        if is_slow:
            self._slow.add(hypervisor)
            self._counted -= self._running[hypervisor]
        else:
            self._slow.discard(hypervisor)
            self._counted += self._running[hypervisor]
        self._look_at(hypervisor)

    def adopt_stale(self, now_s: float) -> None:
        """Take over what the leader has left lying for too long."""
        while self._leaders:
            guest, since_s = next(iter(self._leaders.items()))
            if now_s - since_s < self._stale_s:
                return
            del self._leaders[guest]
            self._enter(guest, self._of_guest[guest][0].job)

    def too_long(self, now_s: float, limit_s: float) -> list[KnownJob]:
        """Our jobs that have been in the line for more than `limit_s` and were not begun, oldest first.

        Each is told once in `limit_s`.
        """
        found: list[KnownJob] = []
        while self._since_s:
            job_id, since_s = next(iter(self._since_s.items()))
            if now_s - since_s < limit_s:
                break
            del self._since_s[job_id]
            self._since_s[job_id] = now_s
            if self.is_ours(self._jobs[job_id].job):
                found.append(self._jobs[job_id])
        return found

    def _begun(self, guest: str) -> KnownJob:
        known = self._of_guest[guest][0]
        self._since_s.pop(known.job.id, None)
        return known

    def _consider(self, guest: str, now_s: float) -> None:
        """Put the guest where its oldest job belongs."""
        of_guest = self._of_guest.get(guest)
        if not of_guest or guest in self._busy or guest in self._resting:
            self._leave(guest)
            return
        job = of_guest[0].job
        if self.is_ours(job):
            self._enter(guest, job)
        elif job.worker:
            self._leave(guest)
            self._foreign[guest] = None
        elif guest not in self._leaders:
            self._leave(guest)
            self._leaders[guest] = now_s

    def _enter(self, guest: str, job: JobRecord) -> None:
        place = _PLACING if job.action == SELECT_HYPERVISOR else job.hypervisor
        if self._place_of.get(guest) == place:
            return
        self._leave(guest)
        self._place_of[guest] = place
        self._ready.setdefault(place, {})[guest] = None
        self._look_at(place)

    def _leave(self, guest: str) -> None:
        self._foreign.pop(guest, None)
        self._leaders.pop(guest, None)
        place = self._place_of.pop(guest, None)
        if place is None:
            return
        del self._ready[place][guest]
        if not self._ready[place]:
            del self._ready[place]
        self._look_at(place)

    def _look_at(self, hypervisor: str) -> None:
        """Whether a job can be begun there."""
        if hypervisor == _PLACING:
            return
        room = 1 if hypervisor in self._slow else self._places.per_hypervisor
        if not hypervisor:
            room = self._places.running  # a guest that was never placed is nobody's load
        if hypervisor in self._ready and self._running[hypervisor] < room:
            self._able[hypervisor] = None
        else:
            self._able.pop(hypervisor, None)
