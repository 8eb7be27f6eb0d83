"""What becomes of each guest that waits for a place, and in which transaction? Pure.

Invariants:
1. One snapshot decides for the whole batch; later guests see what earlier ones took.
2. Every placement and every refusal is written together with its job, compared with the job as the snapshot has it.
3. A job that is no longer waiting, or that another running controller works on, is not touched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from lochness.model.guest import GuestRecord
from lochness.model.job import FETCH, SELECT_HYPERVISOR, JobRecord
from lochness.placement.candidates import CandidateFunction
from lochness.placement.cluster import ClusterView
from lochness.placement.decide import Decision, Refused
from lochness.placement.decide import decide as decide_placements
from lochness.store.protocol import MAX_TRANSACTION_OPS
from lochness.transactions import Transaction, place_guest, update_job
from lochness_controller.workers.transitions import failed, placed

#: A placement needs up to six compares (bindings, mapping, address, guest, job, group) and five puts.
BATCH_MAX = MAX_TRANSACTION_OPS // 6


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job as the snapshot has it, with its guest; None for one that is not to be had, and `problem` says why."""

    job: JobRecord
    job_revision: int
    job_create_revision: int
    guest: GuestRecord | None
    guest_revision: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is written for one waiting job. `decision` is None when there was nothing to decide."""

    job: JobRecord
    transaction: Transaction
    decision: Decision | None = None


def is_waiting(job: JobRecord, worker: str, workers_alive: Collection[str]) -> bool:
    """Whether `worker` may place the job's guest."""
    is_others = job.worker not in ("", worker) and job.worker in workers_alive
    return job.action == SELECT_HYPERVISOR and not job.is_finished and not is_others


def decide(
    view: ClusterView,
    waiting: Sequence[WaitingJob],
    functions: Sequence[CandidateFunction],
    *,
    worker: str,
    now: datetime,
    domain: str = "",
) -> tuple[Outcome, ...]:
    """An outcome for each of `waiting`, in order. `domain`: see `lochness.placement.decide.decide_one`."""
    homeless = [each.guest for each in waiting if each.guest is not None and not each.guest.is_placed]
    decisions = {each.guest.id: each for each in decide_placements(view, homeless, functions, domain=domain)}
    return tuple(_outcome(view, each, decisions, worker, now) for each in waiting)


def _outcome(
    view: ClusterView, waiting: WaitingJob, decisions: dict[str, Decision], worker: str, now: datetime
) -> Outcome:
    job, guest, revision = waiting.job, waiting.guest, waiting.job_revision
    if guest is None:
        after = failed(job, waiting.problem, "guest_not_found", now)
        return Outcome(after, update_job(after, revision))
    if guest.is_placed:
        after = placed(job, guest.hypervisor, FETCH, worker, now, {"chosen": guest.hypervisor, "before": True})
        return Outcome(after, update_job(after, revision))
    decision = decisions[guest.id]
    if isinstance(decision, Refused):
        after = failed(job, decision.message, decision.reason, now, explanation=decision.explanation())
        return Outcome(after, update_job(after, revision), decision)
    after = placed(job, decision.hypervisor, FETCH, worker, now, decision.explanation())
    placement = place_guest(
        decision,
        view_revision=view.revision,
        subnet_revision=view.hypervisors[decision.hypervisor].subnet_revisions[decision.subnet],
        guest_revision=waiting.guest_revision,
        now=now,
    )
    return Outcome(after, placement + update_job(after, revision), decision)
