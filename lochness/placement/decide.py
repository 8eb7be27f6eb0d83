"""Where does a guest go? Decided from a view alone, with the reason for every hypervisor that was passed over.

Invariants:
1. A placement fits: every candidate function kept the hypervisor, and the address is free in the view.
2. In a batch each decision sees the claims of those before it.
3. A refusal carries the tally: per candidate function how many hypervisors it removed, why, and the nearest misses.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lochness.errors import NoCandidateError
from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.placement.candidates import (
    APART,
    GROUP_POLICIES,
    CandidateFilter,
    CandidateFunction,
    Group,
    GuestRequest,
    Hypervisors,
    Refusal,
    share_left,
)
from lochness.placement.cluster import ClusterView

#: How many near misses of each function, and how many of the best candidates, an explanation names.
NEAREST_MAX: Final = 3
BEST_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class FunctionTally:
    """What one candidate function did: of `considered` hypervisors it removed `removed`, `reasons` counts why.

    `nearest` are the refusals that were the least far off, each with its hypervisor, at most NEAREST_MAX; none when the
    guest was placed, or the function gave no reasons.
    """

    function: str
    considered: int
    removed: int
    reasons: tuple[tuple[str, int], ...] = ()
    nearest: tuple[tuple[Refusal, str], ...] = ()

    def to_text(self) -> str:
        """One clause: "candidate_has_resources removed 3 (insufficient_memory: 3; nearest: ... on ID)"."""
        text = f"{self.function} removed {self.removed} of {self.considered}"
        if not self.reasons or not self.nearest:
            return text
        counts = ", ".join(f"{reason}: {count}" for reason, count in self.reasons)
        refusal, hypervisor = self.nearest[0]
        return f"{text} ({counts}; nearest miss: {refusal.text} on hypervisor {hypervisor})"

    def to_fields(self) -> dict[str, Any]:
        """For the job's explanation."""
        fields: dict[str, Any] = {
            "function": self.function,
            "considered": self.considered,
            "removed": self.removed,
        }
        if self.reasons:
            fields["reasons"] = dict(self.reasons)
        if self.nearest:
            fields["nearest"] = [{"hypervisor": id, "text": refusal.text} for refusal, id in self.nearest]
        return fields


@dataclass(frozen=True, slots=True)
class Scored:
    """A hypervisor that could take the guest: what it has free before, and the share of its scarcest resource after."""

    hypervisor: str
    free: Resources
    share_left: float

    def to_fields(self) -> dict[str, Any]:
        return {
            "hypervisor": self.hypervisor,
            "free_memory": self.free.memory,
            "free_disk": self.free.disk,
            "free_cpu": self.free.cpu,
            "share_left": round(self.share_left, 4),
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
    best: tuple[Scored, ...] = ()

    def explanation(self) -> dict[str, Any]:
        """For the job: the chosen one, what each function did, and the first candidates with their scores."""
        return {
            "chosen": self.hypervisor,
            "functions": [entry.to_fields() for entry in self.tally],
            "best": [scored.to_fields() for scored in self.best],
        }


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
    view: ClusterView, guests: Iterable[GuestRecord], functions: Sequence[CandidateFunction], *, domain: str = ""
) -> tuple[Decision, ...]:
    """Decide for each guest in turn; later ones see what earlier ones took."""
    decisions: list[Decision] = []
    for guest in guests:
        decision = decide_one(view, guest, functions, domain=domain)
        decisions.append(decision)
        if isinstance(decision, Placement):
            view = view.with_placement(
                guest.id, decision.hypervisor, decision.subnet, decision.ip, decision.claim, guest.group
            )
    return tuple(decisions)


def decide_one(
    view: ClusterView, guest: GuestRecord, functions: Sequence[CandidateFunction], *, domain: str = ""
) -> Decision:
    """Decide for one guest. `domain` is the hypervisors' metadata that names failure domains ("": each is one)."""
    request = request_for(view, guest, domain=domain)
    if isinstance(request, Refused):
        return request
    hypervisors = list(view.hypervisors.values())
    candidates, tally = narrow(request, hypervisors, functions)
    if not candidates:
        _, tally = narrow(request, hypervisors, functions, with_nearest=True)
        return Refused(guest, NoCandidateError.reason, _refusal_text(len(hypervisors), tally), tally)
    return _placement(request, candidates, tally)


def request_for(view: ClusterView, guest: GuestRecord, *, domain: str = "") -> GuestRequest | Refused:
    """What the candidate functions are asked, or why there is nothing to ask."""
    flavor = view.flavors.get(guest.flavor)
    if flavor is None:
        return Refused(guest, "flavor_not_found", f"flavor {guest.flavor!r} does not exist")
    if guest.network not in view.networks:
        return Refused(guest, "network_not_found", f"network {guest.network!r} does not exist")
    group = _group_of(view, guest, domain)
    if group is not None and group.policy not in GROUP_POLICIES:
        text = f"group_policy must be one of {', '.join(GROUP_POLICIES)}, got {group.policy!r}"
        return Refused(guest, "group_policy_unknown", text)
    subnets = tuple(view.subnets[id] for id in sorted(view.networks[guest.network]))
    return GuestRequest(guest, flavor.resources, subnets, group, view.ordinals)


def _group_of(view: ClusterView, guest: GuestRecord, domain: str) -> Group | None:
    name = guest.group
    if not name:
        return None
    domain = guest.metadata.get("group_domain", domain)
    members: Counter[str] = Counter()
    for hypervisor in view.hypervisors.values():
        if name in hypervisor.groups:
            members[hypervisor.domain(domain)] += hypervisor.groups[name]
    return Group(name, guest.metadata.get("group_policy", APART), domain, members)


def narrow(
    request: GuestRequest,
    hypervisors: Hypervisors,
    functions: Sequence[CandidateFunction],
    *,
    with_nearest: bool = False,
) -> tuple[Hypervisors, tuple[FunctionTally, ...]]:
    """Run the functions one after the other; the hypervisors that remain, and what each function did."""
    tally = []
    for function in functions:
        remaining = function(request, hypervisors)
        tally.append(_tally_of(function, request, hypervisors, remaining, with_nearest))
        hypervisors = remaining
        if not hypervisors:
            break
    return hypervisors, tuple(tally)


def name_of(function: CandidateFunction) -> str:
    """What a candidate function is called in tallies."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name


def _tally_of(
    function: CandidateFunction, request: GuestRequest, before: Hypervisors, after: Hypervisors, with_nearest: bool
) -> FunctionTally:
    name, removed = name_of(function), len(before) - len(after)
    if not removed or not isinstance(function, CandidateFilter):
        return FunctionTally(name, len(before), removed)
    kept = {hypervisor.id for hypervisor in after}
    refusals = [
        (refusal, hypervisor.id)
        for hypervisor in before
        if hypervisor.id not in kept and (refusal := function.refusal(request, hypervisor)) is not None
    ]
    nearest = heapq.nsmallest(NEAREST_MAX, refusals, key=lambda item: (item[0].shortfall, item[1]))
    reasons = counted(Counter(refusal.reason for refusal, _ in refusals))
    return FunctionTally(name, len(before), removed, reasons, tuple(nearest) if with_nearest else ())


def counted(reasons: Counter[str]) -> tuple[tuple[str, int], ...]:
    """Reasons with their counts, the most frequent first."""
    return tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _refusal_text(considered: int, tally: Sequence[FunctionTally]) -> str:
    if considered == 0:
        return "no candidate: no hypervisor is registered"
    removing = [entry.to_text() for entry in tally if entry.removed]
    return f"no candidate among {considered} hypervisor(s): {'; '.join(removing)}"


def _placement(request: GuestRequest, candidates: Hypervisors, tally: tuple[FunctionTally, ...]) -> Decision:
    hypervisor = candidates[0]
    best = tuple(Scored(each.id, each.free, share_left(request, each)) for each in candidates[:BEST_MAX])
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
                best=best,
            )
    # Reached only when an operator's own list of functions leaves out candidate_has_subnet.
    return Refused(
        request.guest,
        "no_free_address",
        f"no free address for the guest on hypervisor {hypervisor.id}: none of its subnets belongs to network "
        f"{request.guest.network} and has one left",
        tally,
    )
