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
from typing import Any, Final

import msgspec

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
    share_left,
)
from lochness.placement.cluster import ClusterView, HypervisorView

#: How many near misses of each function, and how many of the best candidates, an explanation names.
NEAREST_MAX: Final = 3
BEST_MAX: Final = 3
SHARE_DIGITS: Final = 4


class NearMiss(msgspec.Struct, frozen=True, gc=False):
    """A hypervisor that was nearly a candidate, and what stood in the way."""

    hypervisor: str
    text: str


# What an explanation is made of are Structs, encoded as they stand: their fields' names are those in the JSON.


class FunctionTally(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one candidate function did: of `considered` hypervisors it removed `removed`, `reasons` counts why.

    `nearest` are the refusals that were the least far off, at most NEAREST_MAX; none when the guest was placed, or the
    function gave no reasons.
    """

    function: str
    considered: int
    removed: int
    reasons: dict[str, int] = {}
    nearest: tuple[NearMiss, ...] = ()

    def to_text(self) -> str:
        """One clause: "candidate_has_resources removed 3 (insufficient_memory: 3; nearest: ... on ID)"."""
        text = f"{self.function} removed {self.removed} of {self.considered}"
        if not self.reasons or not self.nearest:
            return text
        counts = ", ".join(f"{reason}: {count}" for reason, count in self.reasons.items())
        miss = self.nearest[0]
        return f"{text} ({counts}; nearest miss: {miss.text} on hypervisor {miss.hypervisor})"


class Scored(msgspec.Struct, frozen=True, gc=False):
    """A hypervisor that could take the guest: what it has free before, and the share of its scarcest resource after."""

    hypervisor: str
    free_memory: int
    free_disk: int
    free_cpu: int
    share_left: float


class Placement(msgspec.Struct, frozen=True, gc=False):
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
        return {"chosen": self.hypervisor, "functions": self.tally, "best": self.best}


class Refused(msgspec.Struct, frozen=True, gc=False):
    """No hypervisor can take the guest. `message` is the whole reason in one line, `reason` its stable word."""

    guest: GuestRecord
    reason: str
    message: str
    tally: tuple[FunctionTally, ...] = ()

    def explanation(self) -> dict[str, Any]:
        return {"refused": self.reason, "functions": self.tally}

    def to_error(self) -> NoCandidateError:
        return NoCandidateError(self.message, tally=msgspec.to_builtins(self.tally), reason=self.reason)


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
    reasons = dict(counted(Counter(refusal.reason for refusal, _ in refusals)))
    if not with_nearest:
        return FunctionTally(name, len(before), removed, reasons)
    nearest = heapq.nsmallest(NEAREST_MAX, refusals, key=lambda item: (item[0].shortfall, item[1]))
    misses = tuple(NearMiss(hypervisor, refusal.text) for refusal, hypervisor in nearest)
    return FunctionTally(name, len(before), removed, reasons, misses)


def counted(reasons: Counter[str]) -> tuple[tuple[str, int], ...]:
    """Reasons with their counts, the most frequent first."""
    return tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _refusal_text(considered: int, tally: Sequence[FunctionTally]) -> str:
    if considered == 0:
        return "no candidate: no hypervisor is registered"
    removing = [entry.to_text() for entry in tally if entry.removed]
    return f"no candidate among {considered} hypervisor(s): {'; '.join(removing)}"


def _scored(request: GuestRequest, hypervisor: HypervisorView) -> Scored:
    free, share = hypervisor.free, round(share_left(request, hypervisor), SHARE_DIGITS)
    return Scored(hypervisor.id, free.memory, free.disk, free.cpu, share)


def _placement(request: GuestRequest, candidates: Hypervisors, tally: tuple[FunctionTally, ...]) -> Decision:
    hypervisor = candidates[0]
    best = tuple(_scored(request, each) for each in candidates[:BEST_MAX])
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
