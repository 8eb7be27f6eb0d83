"""Placement as data: a view in, a decision with its reasons out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lochness.model.address import guest_mac
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.placement.candidates import (
    DEFAULT_CANDIDATE_FUNCTIONS,
    candidate_has_resources,
    candidate_is_alive,
    candidate_randomize,
)
from lochness.placement.cluster import ClusterView, HypervisorView, SubnetView
from lochness.placement.decide import Placement, Refused, decide, decide_one

FLAVOR, IMAGE, NETWORK, SUBNET = (f"{n}{n}{n}{n}{n}{n}{n}{n}-0000-4000-8000-000000000000" for n in "1234")


def hypervisor_id(number: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{number:012d}"


def guest(number: int = 0, **changes: str) -> GuestRecord:
    id = f"bbbbbbbb-0000-4000-8000-{number:012d}"
    return GuestRecord.from_fields({"id": id, "flavor": FLAVOR, "network": NETWORK, "mac": guest_mac(id)} | changes)


def subnet(first: int = 10, last: int = 250, **changes) -> SubnetView:
    return SubnetView(
        id=SUBNET, network=NETWORK, version=4, first=(10 << 24) + first, last=(10 << 24) + last, **changes
    )


def hypervisor(number: int = 1, memory: int = 4096, **changes) -> HypervisorView:
    view = HypervisorView(
        id=hypervisor_id(number),
        is_alive=True,
        total=Resources(memory=memory, disk=100_000, cpu=16),
        subnets={SUBNET: "br0"},
        subnet_revisions={SUBNET: 7},
    )
    return replace(view, **changes)


def cluster(*hypervisors: HypervisorView, subnets: tuple[SubnetView, ...] = (subnet(),)) -> ClusterView:
    return ClusterView(
        revision=42,
        hypervisors={view.id: view for view in hypervisors},
        subnets={view.id: view for view in subnets},
        flavors={FLAVOR: FlavorRecord(id=FLAVOR, image=IMAGE, memory=1024, disk=10_000, cpu=2)},
        networks={NETWORK: frozenset(view.id for view in subnets)},
    )


def test_a_guest_goes_where_everything_fits():
    decision = decide_one(cluster(hypervisor()), guest(), DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(decision, Placement)
    assert (decision.hypervisor, decision.subnet, decision.bridge, decision.ip) == (
        hypervisor_id(1),
        SUBNET,
        "br0",
        "10.0.0.10",
    )
    assert decision.claim == Resources(memory=1024, disk=10_000, cpu=2)


def test_a_batch_sees_what_it_has_taken_itself():
    decisions = decide(cluster(hypervisor(memory=2048)), [guest(n) for n in range(3)], DEFAULT_CANDIDATE_FUNCTIONS)
    placed = [decision for decision in decisions if isinstance(decision, Placement)]
    assert [decision.ip for decision in placed] == ["10.0.0.10", "10.0.0.11"]
    assert isinstance(decisions[2], Refused)
    assert "wanted 1024 MB, had 0 MB" in decisions[2].message


def test_qemus_own_memory_counts_for_each_guest():
    view = hypervisor(memory=2048, guest_overhead_mb=64)
    first, second = decide(cluster(view), [guest(1), guest(2)], DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(first, Placement)
    assert isinstance(second, Refused)
    assert "wanted 1088 MB, had 960 MB" in second.message


def test_the_refusal_counts_every_function_and_names_the_nearest_miss():
    dead = hypervisor(1, is_alive=False)
    unconnected = hypervisor(2, subnets={})
    far, near = hypervisor(3, memory=100), hypervisor(4, memory=1000)
    decision = decide_one(cluster(dead, unconnected, far, near), guest(), DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(decision, Refused)
    assert decision.reason == "no_candidate"
    assert [(t.function, t.considered, t.removed, dict(t.reasons)) for t in decision.tally] == [
        ("candidate_is_alive", 4, 1, {"heartbeat_missing": 1}),
        ("candidate_has_subnet", 3, 1, {"no_subnet": 1}),
        ("candidate_has_resources", 2, 2, {"insufficient_memory": 2}),
    ]
    assert [miss.hypervisor for miss in decision.tally[2].nearest] == [near.id, far.id]
    assert f"insufficient_memory: wanted 1024 MB, had 1000 MB on hypervisor {near.id}" in decision.message


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (Resources(memory=9999, disk=9_999, cpu=9), "insufficient_disk: wanted 10000 MB, had 9999 MB"),
        (Resources(memory=9999, disk=99_999, cpu=1), "insufficient_cpu: wanted 2, had 1"),
        (Resources(memory=1024, disk=10_000, cpu=2), None),
    ],
)
def test_each_resource_is_looked_at(total, text):
    decision = decide_one(cluster(hypervisor(total=total)), guest(), DEFAULT_CANDIDATE_FUNCTIONS)
    if text is None:
        assert isinstance(decision, Placement)
    else:
        assert isinstance(decision, Refused)
        assert text in decision.message


def test_no_hypervisor_at_all_is_said_so():
    decision = decide_one(cluster(), guest(), DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(decision, Refused)
    assert "no hypervisor is registered" in decision.message


def test_used_addresses_and_the_gateway_are_never_given():
    used = frozenset({(10 << 24) + 10, (10 << 24) + 12})
    view = cluster(hypervisor(), subnets=(subnet(10, 14, reserved=frozenset({(10 << 24) + 11}), used=used),))
    first, second, third = decide(view, [guest(n) for n in range(3)], DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(first, Placement)
    assert isinstance(second, Placement)
    assert {first.ip, second.ip} == {"10.0.0.13", "10.0.0.14"}
    assert isinstance(third, Refused)
    assert "no_free_address: wanted 1, all 4" in third.message


def test_an_ipv6_64_is_searched_lazily():
    huge = SubnetView(id=SUBNET, network=NETWORK, version=6, first=1 << 100, last=(1 << 100) + (1 << 64) - 1)
    view = cluster(hypervisor(), subnets=(huge,))
    decision = decide_one(view, guest(), DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(decision, Placement)
    assert decision.ip == "0:10::"


def test_a_missing_flavor_or_network_is_named():
    gone = decide_one(replace(cluster(hypervisor()), flavors={}), guest(), DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(gone, Refused)
    assert gone.reason == "flavor_not_found"
    nowhere = decide_one(cluster(hypervisor()), guest(network=IMAGE), DEFAULT_CANDIDATE_FUNCTIONS)
    assert isinstance(nowhere, Refused)
    assert nowhere.reason == "network_not_found"


def test_randomize_spreads_guests_and_repeats_itself():
    view = cluster(*(hypervisor(n, memory=1_000_000) for n in range(10)))
    chosen = [decide_one(view, guest(n), DEFAULT_CANDIDATE_FUNCTIONS) for n in range(200)]
    again = [decide_one(view, guest(n), DEFAULT_CANDIDATE_FUNCTIONS) for n in range(200)]
    assert chosen == again
    assert len({decision.hypervisor for decision in chosen if isinstance(decision, Placement)}) == 10


def test_an_operators_own_function_takes_part_and_is_counted():
    def only_even(request, hypervisors):
        return [view for view in hypervisors if int(view.id[-1]) % 2 == 0]

    functions = (candidate_is_alive, only_even, candidate_has_resources, candidate_randomize)
    decision = decide_one(cluster(hypervisor(1), hypervisor(3)), guest(), functions)
    assert isinstance(decision, Refused)
    assert "only_even removed 2 of 2" in decision.message


def test_without_the_subnet_function_a_guest_without_an_address_is_still_refused():
    decision = decide_one(cluster(hypervisor(subnets={})), guest(), (candidate_is_alive,))
    assert isinstance(decision, Refused)
    assert decision.reason == "no_free_address"


def test_the_default_functions_are_the_four_in_order():
    assert [getattr(function, "__name__", "") for function in DEFAULT_CANDIDATE_FUNCTIONS] == [
        "candidate_is_alive",
        "candidate_has_subnet",
        "candidate_has_resources",
        "candidate_randomize",
    ]
