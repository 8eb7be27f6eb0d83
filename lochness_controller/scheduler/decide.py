"""What is written for a guest that waits for a place, and which of it goes into one transaction? Pure.

Invariants:
1. Every placement and every refusal is written together with its job, compared with the job as it was known.
2. A job that is no longer waiting, or that another running controller works on, is not touched.
3. No two transactions under way write bindings of the same hypervisor, or guests of the same group: the second one's
   compares would rest on what the first one is about to change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final

import msgspec

from lochness.model.guest import GuestRecord
from lochness.model.job import FETCH, SELECT_HYPERVISOR, JobRecord
from lochness.placement.decide import Decision, Placement, Refused
from lochness.placement.fleet import Fleet
from lochness.store.protocol import MAX_TRANSACTION_OPS, Compare, Operation, name_of
from lochness.transactions import Transaction, place_guest, update_job
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.transitions import failed, placed

#: How many jobs are taken up at a time; their places are committed in transactions of 25 to 32 guests.
BATCH_MAX: Final = 1000


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A job with its guest; None for one that is not to be had, and `problem` says why. `attempt` counts from 0."""

    known: KnownJob
    guest: GuestRecord | None
    guest_revision: int
    attempt: int = 0
    problem: str = ""


class Decided(msgspec.Struct, frozen=True, gc=False):
    """What was decided for a waiting job; None: its guest has a place already, or there is none to decide for."""

    waiting: Waiting
    decision: Decision | None

    @property
    def placement(self) -> Placement | None:
        return self.decision if isinstance(self.decision, Placement) else None


class Bundle(msgspec.Struct, frozen=True, gc=False):
    """One transaction and what it is made of, with each job as it will be.

    `claims` is what no other transaction under way may write: hypervisors, and groups.
    """

    transaction: Transaction
    parts: tuple[tuple[Decided, JobRecord], ...]
    claims: frozenset[str]


def is_waiting(job: JobRecord, worker: str, workers_alive: Collection[str]) -> bool:
    """Whether `worker` may place the job's guest."""
    is_others = job.worker not in ("", worker) and job.worker in workers_alive
    return job.action == SELECT_HYPERVISOR and not job.is_finished and not is_others


def claims_of(decided: Decided) -> tuple[str, ...]:
    """Its hypervisor's id, and its group. A group that is called like a hypervisor at worst waits for nothing."""
    placement = decided.placement
    if placement is None:
        return ()
    group = placement.guest.group
    return (placement.hypervisor, group) if group else (placement.hypervisor,)


def bundle(
    waiting: Sequence[Decided], under_way: AbstractSet[str], fleet: Fleet, *, worker: str, now: datetime
) -> tuple[Bundle, list[Decided]]:
    """As many of `waiting` as one transaction holds, and the rest in order. Empty when all must wait.

    `under_way` are the claims of the transactions under way.
    """
    parts: list[tuple[Decided, JobRecord]] = []
    compares: dict[Compare, None] = {}
    operations: dict[str, Operation] = {}  # by key: two guests of a group write the group's once
    claims: set[str] = set()
    rest: list[Decided] = []
    for number, decided in enumerate(waiting):
        own = claims_of(decided)
        if not under_way.isdisjoint(own):
            rest.append(decided)
            continue
        job, transaction = outcome(decided, fleet, worker=worker, now=now)
        more = [compare for compare in transaction.compares if compare not in compares]
        if max(len(compares) + len(more), len(operations) + len(transaction.operations)) > MAX_TRANSACTION_OPS:
            rest += waiting[number:]
            break
        compares.update(dict.fromkeys(more))
        operations.update({name_of(operation): operation for operation in transaction.operations})
        parts.append((decided, job))
        claims.update(own)
    return Bundle(Transaction(tuple(compares), tuple(operations.values())), tuple(parts), frozenset(claims)), rest


def outcome(decided: Decided, fleet: Fleet, *, worker: str, now: datetime) -> tuple[JobRecord, Transaction]:
    """The job as it will be, and everything that is written with it."""
    waiting, decision = decided.waiting, decided.decision
    job, revision, guest = waiting.known.job, waiting.known.mod_revision, waiting.guest
    if guest is None:
        after = failed(job, waiting.problem, "guest_not_found", now)
        return after, update_job(after, revision)
    if isinstance(decision, Refused):
        after = failed(job, decision.message, decision.reason, now, explanation=decision.explanation())
        return after, update_job(after, revision)
    if decision is None:
        after = placed(job, guest.hypervisor, FETCH, worker, now, {"chosen": guest.hypervisor, "before": True})
        return after, update_job(after, revision)
    after = placed(job, decision.hypervisor, FETCH, worker, now, decision.explanation())
    placement = place_guest(
        decision,
        view_revision=fleet.bindings_known(decision.hypervisor),
        group_revision=fleet.group_known(guest.group),
        subnet_revision=fleet.hosts[decision.hypervisor].parts.subnet_revisions[decision.subnet],
        guest_revision=waiting.guest_revision,
        now=now,
    )
    job_change = update_job(after, revision)
    return after, Transaction(  # no key is in both
        placement.compares + job_change.compares, placement.operations + job_change.operations
    )


def decide(waiting: Iterable[Waiting], fleet: Fleet, choose: Callable[[GuestRecord], Decision]) -> list[Decided]:
    """Decide for each in turn; what it gets is held on the fleet, so that later ones see it."""
    decided = []
    for each in waiting:
        decision = None
        if each.guest is not None and not each.guest.is_placed:
            decision = choose(each.guest)
            if isinstance(decision, Placement):
                fleet.hold(decision)
        decided.append(Decided(each, decision))
    return decided
