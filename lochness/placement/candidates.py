"""Which hypervisors may take a guest: the candidate functions and their reasons.

A candidate function takes a guest's request and hypervisors and answers those that remain, in the order of preference.
It reads nothing and changes nothing. An operator's own is any such callable; one built by `candidate_filter` also
tells, hypervisor by hypervisor, why it refused.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.placement.cluster import HypervisorView, SubnetView


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """A guest that wants a place: its record, what its flavor claims, and the subnets of its network."""

    guest: GuestRecord
    claim: Resources
    subnets: tuple[SubnetView, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one hypervisor cannot take a guest. `reason` is a stable word, `text` the whole sentence with its numbers.

    `shortfall` orders near misses: how far off it was, as a fraction of what was wanted (0: nothing to measure).
    """

    reason: str
    text: str
    shortfall: float = 0.0


Hypervisors = Sequence[HypervisorView]
CandidateFunction = Callable[[GuestRequest, Hypervisors], Hypervisors]
RefusalFunction = Callable[[GuestRequest, HypervisorView], Refusal | None]


class CandidateFilter:
    """A candidate function that judges each hypervisor by itself. `refusal` says why it would be removed, or None."""

    def __init__(self, refusal: RefusalFunction) -> None:
        self.refusal = refusal
        self.__name__ = refusal.__name__
        self.__doc__ = refusal.__doc__

    def __call__(self, request: GuestRequest, hypervisors: Hypervisors) -> Hypervisors:
        return [hypervisor for hypervisor in hypervisors if self.refusal(request, hypervisor) is None]


def candidate_filter(refusal: RefusalFunction) -> CandidateFilter:
    """Make a candidate function of one that says why a hypervisor cannot take the guest, or None when it can."""
    return CandidateFilter(refusal)


@candidate_filter
def candidate_is_alive(_: GuestRequest, hypervisor: HypervisorView) -> Refusal | None:
    """Keeps hypervisors whose heartbeat is present."""
    if hypervisor.is_alive:
        return None
    return Refusal("heartbeat_missing", "heartbeat_missing: no heartbeat in the store")


@candidate_filter
def candidate_has_subnet(request: GuestRequest, hypervisor: HypervisorView) -> Refusal | None:
    """Keeps hypervisors that have a subnet of the guest's network with a free address."""
    mapped = [subnet for subnet in request.subnets if subnet.id in hypervisor.subnets]
    if any(subnet.has_free_address for subnet in mapped):
        return None
    if mapped:
        size = sum(subnet.size for subnet in mapped)
        return Refusal("no_free_address", f"no_free_address: wanted 1, all {size} of {len(mapped)} subnet(s) are used")
    return Refusal(
        "no_subnet",
        f"no_subnet: the network has {len(request.subnets)} subnet(s), the hypervisor "
        f"{len(hypervisor.subnets)}, none in both",
    )


@candidate_filter
def candidate_has_resources(request: GuestRequest, hypervisor: HypervisorView) -> Refusal | None:
    """Keeps hypervisors whose free memory, disk and CPUs hold the guest's flavor (memory with QEMU's own)."""
    free = hypervisor.free
    wanted_memory = request.claim.memory + hypervisor.guest_overhead_mb
    for name, unit, wanted, had in (
        ("memory", " MB", wanted_memory, free.memory),
        ("disk", " MB", request.claim.disk, free.disk),
        ("cpu", "", request.claim.cpu, free.cpu),
    ):
        if wanted > had:
            reason = f"insufficient_{name}"
            return Refusal(reason, f"{reason}: wanted {wanted}{unit}, had {had}{unit}", (wanted - had) / wanted)
    return None


def candidate_randomize(request: GuestRequest, hypervisors: Hypervisors) -> Hypervisors:
    """Shuffles.

    The order follows from the guest's id, so a decision can be repeated: the same guest, the same order.
    """
    shuffled = list(hypervisors)
    random.Random(uuid.UUID(request.guest.id).int).shuffle(shuffled)
    return shuffled


DEFAULT_CANDIDATE_FUNCTIONS: Final[tuple[CandidateFunction, ...]] = (
    candidate_is_alive,
    candidate_has_subnet,
    candidate_has_resources,
    candidate_randomize,
)
