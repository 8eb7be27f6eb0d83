"""Where does a guest go? Decided from a view alone, with the reason for every hypervisor that was passed over.

Invariants:
1. A placement fits: every candidate function kept the hypervisor, and the address is free in the view.
2. In a batch each decision sees the claims of those before it.
3. A refusal carries the tally: per candidate function how many hypervisors it removed, why, and the nearest miss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lochness.errors import NoCandidateError
from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.placement.candidates import (
    CandidateFilter,
    CandidateFunction,
    GuestRequest,
    Hypervisors,
    Refusal,
)
from lochness.placement.cluster import ClusterView, HypervisorView


@dataclass(frozen=True, slots=True)
class FunctionTally:
    """What one candidate function did: of `considered` hypervisors it removed `removed`, `reasons` counts why.

    `nearest` is the refusal that was the least far off, on the hypervisor `nearest_hypervisor`; None when it gave no
    reasons.
    """

    function: str
    considered: int
    removed: int
    reasons: tuple[tuple[str, int], ...] = ()
    nearest: Refusal | None = None
    nearest_hypervisor: str = ""

    def to_text(self) -> str:
        """One clause: "candidate_has_resources removed 3 (insufficient_memory: 3; nearest: ... on ID)"."""
        text = f"{self.function} removed {self.removed} of {self.considered}"
        if not self.reasons or self.nearest is None:
            return text
        counts = ", ".join(f"{reason}: {count}" for reason, count in self.reasons)
        return f"{text} ({counts}; nearest miss: {self.nearest.text} on hypervisor {self.nearest_hypervisor})"

    def to_fields(self) -> dict[str, Any]:
        """For the job's explanation."""
        return {
            "function": self.function,
            "considered": self.considered,
            "removed": self.removed,
            "reasons": dict(self.reasons),
            "nearest": self.nearest.text if self.nearest else "",
            "nearest_hypervisor": self.nearest_hypervisor,
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """The guest goes to this hypervisor, with this address of this subnet, on this bridge."""

    guest: GuestRecord
    hypervisor: str
    subnet: str
    bridge: str
    ip: str
    claim: Resources
    tally: tuple[FunctionTally, ...]

    def explanation(self) -> dict[str, Any]:
        return {"chosen": self.hypervisor, "functions": [entry.to_fields() for entry in self.tally]}


@dataclass(frozen=True, slots=True)
class Refused:
    """No hypervisor can take the guest. `message` is the whole reason in one line, `reason` its stable word."""

    guest: GuestRecord
    reason: str
    message: str
    tally: tuple[FunctionTally, ...] = ()

    def explanation(self) -> dict[str, Any]:
        return {"refused": self.reason, "functions": [entry.to_fields() for entry in self.tally]}

    def to_error(self) -> NoCandidateError:
        return NoCandidateError(self.message, tally=[entry.to_fields() for entry in self.tally], reason=self.reason)


Decision = Placement | Refused


def decide(
    view: ClusterView, guests: Iterable[GuestRecord], functions: Sequence[CandidateFunction]
) -> tuple[Decision, ...]:
    """Decide for each guest in turn; later ones see what earlier ones took."""
    decisions: list[Decision] = []
    for guest in guests:
        decision = decide_one(view, guest, functions)
        decisions.append(decision)
        if isinstance(decision, Placement):
            view = view.with_placement(guest.id, decision.hypervisor, decision.subnet, decision.ip, decision.claim)
    return tuple(decisions)


def decide_one(view: ClusterView, guest: GuestRecord, functions: Sequence[CandidateFunction]) -> Decision:
    """Decide for one guest."""
    flavor = view.flavors.get(guest.flavor)
    if flavor is None:
        return Refused(guest, "flavor_not_found", f"flavor {guest.flavor!r} does not exist")
    if guest.network not in view.networks:
        return Refused(guest, "network_not_found", f"network {guest.network!r} does not exist")
    subnets = tuple(view.subnets[id] for id in sorted(view.networks[guest.network]))
    request = GuestRequest(guest, flavor.resources, subnets)
    candidates, tally = narrow(request, list(view.hypervisors.values()), functions)
    if not candidates:
        return Refused(guest, NoCandidateError.reason, _refusal_text(len(view.hypervisors), tally), tally)
    return _placement(request, candidates[0], tally)


def narrow(
    request: GuestRequest, hypervisors: Hypervisors, functions: Sequence[CandidateFunction]
) -> tuple[Hypervisors, tuple[FunctionTally, ...]]:
    """Run the functions one after the other; the hypervisors that remain, and what each function did."""
    tally = []
    for function in functions:
        remaining = function(request, hypervisors)
        tally.append(_tally_of(function, request, hypervisors, remaining))
        hypervisors = remaining
        if not hypervisors:
            break
    return hypervisors, tuple(tally)


def _tally_of(
    function: CandidateFunction, request: GuestRequest, before: Hypervisors, after: Hypervisors
) -> FunctionTally:
    name = getattr(function, "__name__", type(function).__name__)
    if len(after) == len(before) or not isinstance(function, CandidateFilter):
        return FunctionTally(name, len(before), len(before) - len(after))
    kept = {hypervisor.id for hypervisor in after}
    refusals = [
        (refusal, hypervisor.id)
        for hypervisor in before
        if hypervisor.id not in kept and (refusal := function.refusal(request, hypervisor)) is not None
    ]
    counts = Counter(refusal.reason for refusal, _ in refusals)
    nearest, nearest_hypervisor = min(refusals, key=lambda item: (item[0].shortfall, item[1]))
    return FunctionTally(
        name, len(before), len(before) - len(after), tuple(counts.most_common()), nearest, nearest_hypervisor
    )


def _refusal_text(considered: int, tally: Sequence[FunctionTally]) -> str:
    if considered == 0:
        return "no candidate: no hypervisor is registered"
    removing = [entry.to_text() for entry in tally if entry.removed]
    return f"no candidate among {considered} hypervisor(s): {'; '.join(removing)}"


def _placement(request: GuestRequest, hypervisor: HypervisorView, tally: tuple[FunctionTally, ...]) -> Decision:
    for subnet in request.subnets:
        if subnet.id not in hypervisor.subnets:
            continue
        address = next(subnet.free_addresses(), None)
        if address is not None:
            return Placement(
                guest=request.guest,
                hypervisor=hypervisor.id,
                subnet=subnet.id,
                bridge=hypervisor.subnets[subnet.id],
                ip=str(address),
                claim=request.claim,
                tally=tally,
            )
    # Reached only when an operator's own list of functions leaves out candidate_has_subnet.
    return Refused(
        request.guest,
        "no_free_address",
        f"no free address for the guest on hypervisor {hypervisor.id}: none of its subnets belongs to network "
        f"{request.guest.network} and has one left",
        tally,
    )
