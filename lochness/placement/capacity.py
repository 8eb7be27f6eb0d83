"""How many more guests of a flavor fit, and what runs out first?

Invariants:
1. The number is exact for a cluster that stands still: so many can be placed, and not one more. Each hypervisor takes
   what its scarcest resource allows; addresses are shared by the hypervisors that a subnet is mapped on.
2. Only hypervisors count that the controller's candidate functions leave for a guest of this flavor.

Not guaranteed: that guests with a group (apart, together) fit as often.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.placement.candidates import CandidateFunction, GuestRequest, wanted_and_free
from lochness.placement.cluster import ClusterView, HypervisorView
from lochness.placement.decide import Refused, counted, request_for
from lochness.placement.explain import Verdict, verdicts

ADDRESSES: Final = "addresses"
HYPERVISORS: Final = "hypervisors"

_NOBODY: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Room:
    """How many more guests one hypervisor takes by its resources, and which of them ends it."""

    hypervisor: HypervisorView
    guests: int
    limited_by: str

    def to_fields(self) -> dict[str, Any]:
        name = self.hypervisor.metadata.get("name", "")
        return {
            "hypervisor": self.hypervisor.id,
            "name": name,
            "guests": self.guests,
            "limited_by": self.limited_by,
        }


@dataclass(frozen=True, slots=True)
class Capacity:
    """`guests` more guests fit; `limited_by` is what runs out first: memory, disk, cpu, addresses, or hypervisors.

    "hypervisors" says that there is none to take any. `free_addresses` are those of the network's subnets that are
    mapped where there is room to come. `refused` counts hypervisors that take none, by reason.
    """

    flavor: str
    network: str
    guests: int
    limited_by: str
    free_addresses: int
    rooms: tuple[Room, ...]
    refused: tuple[tuple[str, int], ...]

    def to_fields(self, *, with_hypervisors: bool = True) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "flavor": self.flavor,
            "network": self.network,
            "guests": self.guests,
            "limited_by": self.limited_by,
            "free_addresses": self.free_addresses,
            "refused": dict(self.refused),
        }
        return fields | ({"hypervisors": [room.to_fields() for room in self.rooms]} if with_hypervisors else {})


def capacity(
    view: ClusterView, flavor: str, network: str, functions: Sequence[CandidateFunction]
) -> Capacity | Refused:
    """The capacity for guests of this flavor on this network ("": whichever has room).

    Refused when one of them does not exist.
    """
    if not network:
        view = replace(view, networks={network: frozenset(view.subnets)})
    request = request_for(view, GuestRecord(id=_NOBODY, flavor=flavor, network=network))
    if isinstance(request, Refused):
        return request
    judged = verdicts(request, tuple(view.hypervisors.values()), functions)
    rooms = tuple(
        sorted(
            (room_on(verdict.hypervisor, request.claim) for verdict in judged if verdict.rank),
            key=lambda room: (-room.guests, room.hypervisor.id),
        )
    )
    refused = counted(Counter(verdict.reason for verdict in judged if not verdict.rank))
    return _capacity(request, rooms, judged, refused)


def _capacity(
    request: GuestRequest, rooms: tuple[Room, ...], judged: Sequence[Verdict], refused: tuple[tuple[str, int], ...]
) -> Capacity:
    free = {subnet.id: subnet.free_count for subnet in request.subnets}
    by_resources = sum(room.guests for room in rooms)
    guests = _matched(rooms, free)
    reached = {subnet for room in rooms for subnet in room.hypervisor.subnets if subnet in free}
    if guests < by_resources:
        limited_by = ADDRESSES
    elif rooms:
        limited_by = Counter(room.limited_by for room in rooms).most_common(1)[0][0]
    else:
        limited_by = _first_shortage(judged)
    return Capacity(
        flavor=request.guest.flavor,
        network=request.guest.network,
        guests=guests,
        limited_by=limited_by,
        free_addresses=sum(free[id] for id in reached),
        rooms=rooms,
        refused=refused,
    )


def _first_shortage(judged: Sequence[Verdict]) -> str:
    """What keeps the guest away where no hypervisor is left: the resource most of them lack, else hypervisors."""
    words = {
        "insufficient_memory": "memory",
        "insufficient_disk": "disk",
        "insufficient_cpu": "cpu",
        "no_free_address": ADDRESSES,
    }
    lacking = Counter(words[verdict.reason] for verdict in judged if verdict.reason in words)
    return lacking.most_common(1)[0][0] if lacking else HYPERVISORS


def room_on(hypervisor: HypervisorView, claim: Resources) -> Room:
    """How many more guests with this claim the hypervisor's resources hold."""
    counts = [(max(0, had) // each, name) for name, _, each, had in wanted_and_free(claim, hypervisor) if each]
    guests, limited_by = min(counts, key=lambda count: count[0], default=(0, "memory"))
    return Room(hypervisor, guests, limited_by)


def _matched(rooms: Sequence[Room], free: Mapping[str, int]) -> int:
    """How many guests get both room and an address: the largest flow from hypervisors to subnets.

    Hypervisors with the same subnets are one node, so there are few of them however many machines there are.
    """
    left: defaultdict[frozenset[str], int] = defaultdict(int)
    for room in rooms:
        left[frozenset(free.keys() & room.hypervisor.subnets.keys())] += room.guests
    addresses = dict(free)
    taken: defaultdict[tuple[frozenset[str], str], int] = defaultdict(int)
    flow = 0
    for source in left:
        while left[source] and (path := _augmenting(source, addresses, taken)):
            amount = min(left[source], addresses[path[-1][1]], *(taken[(node, subnet)] for node, subnet in path[1::2]))
            for step, (node, subnet) in enumerate(path):
                taken[(node, subnet)] += amount if step % 2 == 0 else -amount
            left[source] -= amount
            addresses[path[-1][1]] -= amount
            flow += amount
    return flow


def _augmenting(
    source: frozenset[str], addresses: Mapping[str, int], taken: Mapping[tuple[frozenset[str], str], int]
) -> list[tuple[frozenset[str], str]]:
    """The shortest way from `source` to a subnet with an address left: steps there, and every second one a step back.

    A step back takes addresses of a subnet away from other hypervisors, which then get theirs elsewhere.
    """
    came_from: dict[frozenset[str] | str, frozenset[str] | str | None] = {source: None}
    line: deque[frozenset[str] | str] = deque([source])
    while line:
        node = line.popleft()
        if isinstance(node, str):
            if addresses[node]:
                return _steps(node, came_from)
            nexts: list[frozenset[str] | str] = [
                other for (other, subnet), many in taken.items() if subnet == node and many
            ]
        else:
            nexts = sorted(node)
        for each in nexts:
            if each not in came_from:
                came_from[each] = node
                line.append(each)
    return []


def _steps(
    end: str, came_from: Mapping[frozenset[str] | str, frozenset[str] | str | None]
) -> list[tuple[frozenset[str], str]]:
    way: list[frozenset[str] | str] = [end]
    while (before := came_from[way[-1]]) is not None:
        way.append(before)
    way.reverse()
    steps: list[tuple[frozenset[str], str]] = []
    for one, other in pairwise(way):
        steps.append((one, other) if isinstance(other, str) else (other, one))  # type: ignore[arg-type]  # they alternate
    return steps
