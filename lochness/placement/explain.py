"""Why would a guest go where it goes, hypervisor by hypervisor? The whole answer, for people; placing does without it.

Invariants:
1. The decision is the one that `decide_one` makes on the same view.
2. Every hypervisor has one verdict: the first candidate function that removed it, with its numbers, or its place in the
   order of those that could take the guest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from lochness.model.guest import GuestRecord
from lochness.placement.candidates import CandidateFilter, CandidateFunction, GuestRequest, share_left
from lochness.placement.cluster import ClusterView, HypervisorView
from lochness.placement.decide import (
    SHARE_DIGITS,
    Decision,
    Placement,
    Refused,
    decide_one,
    name_of,
    narrow,
    request_for,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one hypervisor. `rank` is its place among the candidates from 1, 0 for one that was removed.

    For one that was removed: `function` removed it, for `reason`, a stable word, and `text` is the sentence with its
    numbers. An operator's own function that gives no reasons has the reason "removed".
    """

    hypervisor: HypervisorView
    rank: int = 0
    share_left: float = 0.0
    function: str = ""
    reason: str = ""
    text: str = ""

    def to_fields(self) -> dict[str, Any]:
        free = self.hypervisor.free
        fields: dict[str, Any] = {
            "hypervisor": self.hypervisor.id,
            "name": self.hypervisor.metadata.get("name", ""),
            "free_memory": free.memory,
            "free_disk": free.disk,
            "free_cpu": free.cpu,
            "guests": len(self.hypervisor.claims),
        }
        if self.rank:
            return fields | {"rank": self.rank, "share_left": round(self.share_left, SHARE_DIGITS)}
        return fields | {"function": self.function, "reason": self.reason, "text": self.text}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision for a guest and every hypervisor's verdict: candidates in their order, then the others by id."""

    decision: Decision
    verdicts: tuple[Verdict, ...]

    def to_fields(self) -> dict[str, Any]:
        """The answer of a dry run. `hypervisor` and its companions are "" when there is no place."""
        decision = self.decision
        is_placed = isinstance(decision, Placement)
        return {
            "is_placed": is_placed,
            "hypervisor": decision.hypervisor if isinstance(decision, Placement) else "",
            "subnet": decision.subnet if isinstance(decision, Placement) else "",
            "bridge": decision.bridge if isinstance(decision, Placement) else "",
            "ip": decision.ip if isinstance(decision, Placement) else "",
            "reason": decision.reason if isinstance(decision, Refused) else "",
            "message": decision.message if isinstance(decision, Refused) else "",
            "functions": msgspec.to_builtins(decision.tally),
            "hypervisors": [verdict.to_fields() for verdict in self.verdicts],
        }


def explain(
    view: ClusterView, guest: GuestRecord, functions: Sequence[CandidateFunction], *, domain: str = ""
) -> Explanation:
    """What would become of `guest`. One that has a place is looked at as if it had none.

    `domain`: see `lochness.placement.decide.decide_one`.
    """
    view, guest = _without_place(view, guest)
    decision = decide_one(view, guest, functions, domain=domain)
    request = request_for(view, guest, domain=domain)
    if isinstance(request, Refused):
        return Explanation(decision, ())
    return Explanation(decision, verdicts(request, tuple(view.hypervisors.values()), functions))


def verdicts(
    request: GuestRequest, hypervisors: Sequence[HypervisorView], functions: Sequence[CandidateFunction]
) -> tuple[Verdict, ...]:
    """The verdict on each of the hypervisors."""
    removed: list[Verdict] = []
    remaining: Sequence[HypervisorView] = hypervisors
    for function in functions:
        before = remaining
        remaining, _ = narrow(request, before, (function,))
        kept = {each.id for each in remaining}
        removed += [_removed(request, each, function) for each in before if each.id not in kept]
    candidates = [
        Verdict(each, rank=rank, share_left=share_left(request, each)) for rank, each in enumerate(remaining, 1)
    ]
    return (*candidates, *sorted(removed, key=lambda verdict: verdict.hypervisor.id))


def _removed(request: GuestRequest, hypervisor: HypervisorView, function: CandidateFunction) -> Verdict:
    name = name_of(function)
    refusal = function.refusal(request, hypervisor) if isinstance(function, CandidateFilter) else None
    if refusal is None:
        return Verdict(hypervisor, function=name, reason="removed", text=f"removed by {name}, which gives no reasons")
    return Verdict(hypervisor, function=name, reason=refusal.reason, text=refusal.text)


def _without_place(view: ClusterView, guest: GuestRecord) -> tuple[ClusterView, GuestRecord]:
    """The cluster as if the guest had no place yet. Its address stays used: nobody else gets it."""
    hypervisor = view.hypervisors.get(guest.hypervisor)
    homeless = msgspec.structs.replace(guest, hypervisor="", subnet="", ip="", bridge="")
    if hypervisor is None or guest.id not in hypervisor.claims:
        return view, homeless
    emptied = hypervisor.without_claim(guest.id, guest.group)
    return replace(view, hypervisors={**view.hypervisors, emptied.id: emptied}), homeless
