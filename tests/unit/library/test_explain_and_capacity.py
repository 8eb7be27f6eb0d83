"""The two questions about placement that change nothing: why there, and how many more?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lochness.candidate_plugins import CONTROLLER_CANDIDATE_FUNCTIONS
from lochness.model.resources import Resources
from lochness.placement.candidates import DEFAULT_CANDIDATE_FUNCTIONS
from lochness.placement.capacity import Capacity, capacity
from lochness.placement.cluster import ClusterView, HypervisorView, SubnetView
from lochness.placement.decide import Placement, Refused, decide, decide_one
from lochness.placement.explain import explain
from tests.unit.library.test_placement import FLAVOR, NETWORK, SUBNET, cluster, guest, hypervisor, subnet


def capacity_of(view: ClusterView) -> Capacity:
    found = capacity(view, FLAVOR, NETWORK, CONTROLLER_CANDIDATE_FUNCTIONS)
    assert isinstance(found, Capacity)
    return found


def test_an_explanation_has_a_verdict_for_every_hypervisor():
    dead, cordoned = hypervisor(1, is_alive=False), hypervisor(2, cordoned="new disks")
    full, good = hypervisor(3, memory=1000, metadata={"name": "rack1-c"}), hypervisor(4)
    view = cluster(dead, cordoned, full, good)
    explanation = explain(view, guest(), CONTROLLER_CANDIDATE_FUNCTIONS)
    assert explanation.decision == decide_one(view, guest(), CONTROLLER_CANDIDATE_FUNCTIONS)
    fields = explanation.to_fields()
    assert (fields["is_placed"], fields["hypervisor"], fields["ip"]) == (True, good.id, "10.0.0.10")
    assert [(v["hypervisor"], v.get("rank"), v.get("function"), v.get("text")) for v in fields["hypervisors"]] == [
        (good.id, 1, None, None),
        (dead.id, None, "candidate_is_alive", "heartbeat_missing: no heartbeat in the store"),
        (cordoned.id, None, "candidate_is_open", "cordoned: new disks"),
        (full.id, None, "candidate_has_resources", "insufficient_memory: wanted 1024 MB, had 1000 MB"),
    ]
    assert fields["hypervisors"][3]["name"] == "rack1-c"


def test_a_guest_that_has_a_place_is_looked_at_as_if_it_had_none():
    resident = guest(1)
    full = hypervisor(memory=1024).with_claim(resident.id, Resources(memory=1024, disk=10_000, cpu=2), "web")
    resident.hypervisor, resident.metadata = full.id, {"group": "web"}
    explanation = explain(cluster(full), resident, CONTROLLER_CANDIDATE_FUNCTIONS)
    assert isinstance(explanation.decision, Placement)
    assert isinstance(decide_one(cluster(full), guest(2), CONTROLLER_CANDIDATE_FUNCTIONS), Refused)


def test_an_unknown_flavor_is_told_without_verdicts():
    view = replace(cluster(hypervisor()), flavors={})
    fields = explain(view, guest(), DEFAULT_CANDIDATE_FUNCTIONS).to_fields()
    assert (fields["is_placed"], fields["reason"], fields["hypervisors"]) == (False, "flavor_not_found", [])


def test_an_operators_function_without_reasons_is_named():
    def nobody(request, hypervisors):
        return []

    fields = explain(cluster(hypervisor()), guest(), (nobody,)).to_fields()
    assert fields["hypervisors"][0]["text"] == "removed by nobody, which gives no reasons"


def test_capacity_is_what_the_scarcest_resource_allows():
    found = capacity_of(cluster(hypervisor(1, memory=4096), hypervisor(2, memory=2047), hypervisor(3, is_alive=False)))
    assert (found.guests, found.limited_by, dict(found.refused)) == (5, "memory", {"heartbeat_missing": 1})
    assert [(room.guests, room.limited_by) for room in found.rooms] == [(4, "memory"), (1, "memory")]
    assert found.free_addresses == 241


def test_capacity_counts_addresses_once_for_all_hypervisors():
    few = subnet(10, 12, used=frozenset({(10 << 24) + 10}))
    found = capacity_of(cluster(hypervisor(1), hypervisor(2), subnets=(few,)))
    assert (found.guests, found.limited_by, found.free_addresses) == (2, "addresses", 2)


@pytest.mark.parametrize(
    ("only", "limited_by"),
    [
        (hypervisor(cordoned="x"), "hypervisors"),
        (hypervisor(memory=1), "memory"),
        (hypervisor(subnets={}), "hypervisors"),
    ],
)
def test_no_capacity_says_what_is_missing(only: HypervisorView, limited_by: str):
    found = capacity_of(cluster(only))
    assert (found.guests, found.limited_by, found.rooms) == (0, limited_by, ())


def test_a_second_subnet_takes_what_the_first_one_cannot():
    # Only the first hypervisor has both subnets: its guests must leave the small one to the second hypervisor.
    other = "55555555-0000-4000-8000-000000000000"
    small = subnet(10, 11)
    large = replace(subnet(10, 250), id=other)
    both = hypervisor(1, subnets={SUBNET: "br0", other: "br1"}, memory=2048)
    one = hypervisor(2, memory=2048)
    assert capacity_of(cluster(both, one, subnets=(small, large))).guests == 4


@given(
    memories=st.lists(st.integers(0, 6000), min_size=1, max_size=5),
    last=st.integers(10, 22),
    used=st.sets(st.integers(10, 22)),
    overhead=st.integers(0, 300),
)
def test_so_many_are_placed_and_not_one_more(memories: list[int], last: int, used: set[int], overhead: int):
    numbers = frozenset((10 << 24) + number for number in used)
    hosts = [hypervisor(n, memory=memory, guest_overhead_mb=overhead) for n, memory in enumerate(memories, 1)]
    view = cluster(*hosts, subnets=(subnet(10, last, used=numbers),))
    guests = [guest(number) for number in range(40)]
    placed = sum(isinstance(each, Placement) for each in decide(view, guests, CONTROLLER_CANDIDATE_FUNCTIONS))
    assert capacity_of(view).guests == placed


SUBNETS = ("s1", "s2", "s3")


@given(
    rooms=st.lists(st.tuples(st.integers(0, 5), st.sets(st.sampled_from(SUBNETS))), max_size=5),
    sizes=st.tuples(*[st.integers(0, 6)] * 3),
)
def test_addresses_of_several_subnets_are_shared_as_well_as_can_be(
    rooms: list[tuple[int, set[str]]], sizes: tuple[int, int, int]
):
    subnets = tuple(
        SubnetView(id=id, network=NETWORK, version=4, first=100 * n, last=100 * n + size - 1)
        for n, (id, size) in enumerate(zip(SUBNETS, sizes, strict=True), 1)
    )
    hosts = [
        hypervisor(n, memory=1024 * room, subnets=dict.fromkeys(mapped, "br0"))
        for n, (room, mapped) in enumerate(rooms, 1)
    ]
    assert capacity_of(cluster(*hosts, subnets=subnets)).guests == matched(
        rooms, dict(zip(SUBNETS, sizes, strict=True))
    )


def matched(rooms: list[tuple[int, set[str]]], sizes: dict[str, int]) -> int:
    """The largest matching of single guests with single addresses, by trying."""
    wishes = [mapped for room, mapped in rooms for _ in range(room)]
    holder: dict[tuple[str, int], int] = {}

    def finds(guest_number: int, seen: set[tuple[str, int]]) -> bool:
        for id in wishes[guest_number]:
            for address in [(id, number) for number in range(sizes[id])]:
                if address not in seen:
                    seen.add(address)
                    if address not in holder or finds(holder[address], seen):
                        holder[address] = guest_number
                        return True
        return False

    return sum(finds(number, set()) for number in range(len(wishes)))
