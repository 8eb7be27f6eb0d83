"""Which hypervisors may take a guest: the candidate functions and their reasons.

A candidate function takes a guest's request and hypervisors and answers those that remain, in the order of preference.
It reads nothing and changes nothing. An operator's own is any such callable; one built by `candidate_filter` also
tells, hypervisor by hypervisor, why it refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.placement.cluster import HypervisorView, SubnetView

#: What the guest's metadata "group_policy" may say of the guests with the same "group".
#: The reason of a refusal: the hypervisor is not alive.
HEARTBEAT_MISSING: Final = "heartbeat_missing"

APART: Final = "apart"
TOGETHER: Final = "together"
GROUP_POLICIES: Final = (APART, TOGETHER)


@dataclass(frozen=True, slots=True)
class Group:
    """The guest's group: its name, its policy, and how many of its guests each failure domain has.

    `domain` is the hypervisors' metadata that names a failure domain ("": each hypervisor is one).
    """

    name: str
    policy: str
    domain: str
    members: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """A guest that wants a place: its record, what its flavor claims, and the subnets of its network.

    `group` is None for a guest that belongs to none. `ordinals` tells each hypervisor's place among all, which orders
    that choose at random rest on; without it the order of the ids is taken.
    """

    guest: GuestRecord
    claim: Resources
    subnets: tuple[SubnetView, ...]
    group: Group | None = None
    ordinals: Mapping[str, int] = field(default_factory=dict)


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


def wanted_and_free(claim: Resources, hypervisor: HypervisorView) -> tuple[tuple[str, str, int, int], ...]:
    """Each resource's name, unit, what a guest with this claim takes of it (memory with QEMU's own), what is free."""
    free = hypervisor.free
    return (
        ("memory", " MB", claim.memory + hypervisor.guest_overhead_mb, free.memory),
        ("disk", " MB", claim.disk, free.disk),
        ("cpu", "", claim.cpu, free.cpu),
    )


def candidate_filter(refusal: RefusalFunction) -> CandidateFilter:
    """Make a candidate function of one that says why a hypervisor cannot take the guest, or None when it can."""
    return CandidateFilter(refusal)


@candidate_filter
def candidate_is_alive(_: GuestRequest, hypervisor: HypervisorView) -> Refusal | None:
    """Keeps hypervisors whose heartbeat is present."""
    if hypervisor.is_alive:
        return None
    return Refusal(HEARTBEAT_MISSING, f"{HEARTBEAT_MISSING}: no heartbeat in the store")


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
    for name, unit, wanted, had in wanted_and_free(request.claim, hypervisor):
        if wanted > had:
            reason = f"insufficient_{name}"
            return Refusal(reason, f"{reason}: wanted {wanted}{unit}, had {had}{unit}", (wanted - had) / wanted)
    return None


@candidate_filter
def candidate_is_open(_: GuestRequest, hypervisor: HypervisorView) -> Refusal | None:
    """Keeps hypervisors that are not cordoned (their setting "cordoned" is not set)."""
    if not hypervisor.cordoned:
        return None
    return Refusal("cordoned", f"cordoned: {hypervisor.cordoned}")


@candidate_filter
def candidate_suits_group(request: GuestRequest, hypervisor: HypervisorView) -> Refusal | None:
    """Keeps failure domains without a guest of the same group, or, for "together", the one that has them.

    The first guest of a group may go anywhere.
    """
    group = request.group
    if group is None:
        return None
    domain = hypervisor.domain(group.domain)
    here = group.members.get(domain, 0)
    where = f"{group.domain} {domain}" if group.domain in hypervisor.metadata else "the hypervisor"
    if group.policy == APART and here:
        return Refusal("group_apart", f"group_apart: {where} has {here} guest(s) of group {group.name!r}, allowed 0")
    if group.policy == TOGETHER and group.members and not here:
        total = sum(group.members.values())
        return Refusal("group_together", f"group_together: all {total} guest(s) of group {group.name!r} are elsewhere")
    return None


@dataclass(frozen=True, slots=True)
class Probe:
    """The order in which a guest tries the hypervisors: from `start`, each `stride` ordinals further, modulo `size`.

    `size` is a prime, so every ordinal comes once. It follows from the guest's id alone: the same guest, the same
    order, and different guests spread evenly.
    """

    start: int
    stride: int
    size: int

    def rank(self, ordinal: int) -> int:
        """When this ordinal's turn is."""
        return (ordinal - self.start) * pow(self.stride, -1, self.size) % self.size


def probe_of(guest_id: str, size: int) -> Probe:
    """The guest's order over ordinals below `size`, a prime."""
    number = int.from_bytes(hashlib.blake2b(guest_id.encode(), digest_size=12).digest(), "big")
    return Probe(number % size, 1 + number // size % (size - 1), size)


def prime_from(least: int) -> int:
    """The smallest prime that is at least `least` and at least 3."""
    number = max(least, 3) | 1
    while any(number % divisor == 0 for divisor in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number


def _ranks(request: GuestRequest, hypervisors: Hypervisors) -> dict[str, int]:
    """The hypervisors' ranks in the guest's order."""
    ordinals = request.ordinals or {id: number for number, id in enumerate(sorted(each.id for each in hypervisors))}
    probe = probe_of(request.guest.id, prime_from(len(ordinals)))
    inverse = pow(probe.stride, -1, probe.size)
    return {each.id: (ordinals.get(each.id, 0) - probe.start) * inverse % probe.size for each in hypervisors}


def candidate_randomize(request: GuestRequest, hypervisors: Hypervisors) -> Hypervisors:
    """Shuffles.

    The order follows from the guest's id, so a decision can be repeated: the same guest, the same order.
    """
    ranks = _ranks(request, hypervisors)
    return sorted(hypervisors, key=lambda each: (ranks[each.id], each.id))


def candidate_spread(request: GuestRequest, hypervisors: Hypervisors) -> Hypervisors:
    """Orders by room, the emptiest first: where the scarcest resource has the largest share left with the guest on it.

    Equal ones as `candidate_randomize` would.
    """
    ranks = _ranks(request, hypervisors)
    return sorted(hypervisors, key=lambda each: (-share_left(request, each), ranks[each.id], each.id))


def candidate_pack(request: GuestRequest, hypervisors: Hypervisors) -> Hypervisors:
    """Orders by room, the fullest first, so that whole hypervisors stay empty. Equal ones by their ids."""
    return sorted(hypervisors, key=lambda each: (share_left(request, each), each.id))


def share_left(request: GuestRequest, hypervisor: HypervisorView) -> float:
    """What share of its scarcest resource the hypervisor has left once the guest is on it, 0 to 1."""
    return share_of(request.claim, hypervisor.guest_overhead_mb, hypervisor.free, hypervisor.total)


def share_of(claim: Resources, overhead_mb: int, free: Resources, total: Resources) -> float:
    """The share left of the scarcest resource of `total` when `claim` is taken of `free`, QEMU's own memory too."""
    memory = (free.memory - claim.memory - overhead_mb) / total.memory if total.memory else 0.0
    disk = (free.disk - claim.disk) / total.disk if total.disk else 0.0
    cpu = (free.cpu - claim.cpu) / total.cpu if total.cpu else 0.0
    return max(0.0, min(memory, disk, cpu))


DEFAULT_CANDIDATE_FUNCTIONS: Final[tuple[CandidateFunction, ...]] = (
    candidate_is_alive,
    candidate_has_subnet,
    candidate_has_resources,
    candidate_randomize,
)

#: Those that a configuration may name.
BUILT_IN_CANDIDATE_FUNCTIONS: Final[tuple[CandidateFunction, ...]] = (
    *DEFAULT_CANDIDATE_FUNCTIONS,
    candidate_is_open,
    candidate_suits_group,
    candidate_spread,
    candidate_pack,
)
