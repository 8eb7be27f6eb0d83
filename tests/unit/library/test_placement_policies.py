"""Spread, pack, groups, failure domains and cordons as data."""

from __future__ import annotations

from collections import Counter

import pytest

from lochness.candidate_plugins import CONTROLLER_CANDIDATE_FUNCTIONS
from lochness.model.guest import GuestRecord
from lochness.placement.candidates import (
    DEFAULT_CANDIDATE_FUNCTIONS,
    candidate_pack,
    candidate_spread,
    prime_from,
    probe_of,
)
from lochness.placement.decide import Decision, Placement, Refused, decide, decide_one
from tests.unit.library.test_placement import cluster, guest, hypervisor, hypervisor_id

FILTERS = CONTROLLER_CANDIDATE_FUNCTIONS[:-1]


def grouped(number: int, **metadata: str) -> GuestRecord:
    return guest(number).patched({"metadata": {"group": "web", **metadata}})


def places(decisions: tuple[Decision, ...]) -> list[str]:
    return [each.hypervisor if isinstance(each, Placement) else "" for each in decisions]


def test_spread_fills_all_alike_and_pack_one_after_the_other():
    view = cluster(*(hypervisor(number, memory=4096) for number in range(1, 4)))
    guests = [guest(number) for number in range(6)]
    spread = decide(view, guests, (*FILTERS, candidate_spread))
    assert set(Counter(places(spread)).values()) == {2}
    packed = decide(view, guests, (*FILTERS, candidate_pack))
    assert places(packed) == [hypervisor_id(1)] * 4 + [hypervisor_id(2)] * 2


def test_the_best_candidates_are_told_with_their_numbers():
    view = cluster(hypervisor(1, memory=4096), hypervisor(2, memory=8192), hypervisor(3, memory=1024))
    decision = decide_one(view, guest(), (*FILTERS, candidate_spread))
    assert isinstance(decision, Placement)
    best = decision.explanation()["best"]
    assert [(each.hypervisor, each.free_memory, each.share_left) for each in best] == [
        (hypervisor_id(2), 8192, 0.875),
        (hypervisor_id(1), 4096, 0.75),
        (hypervisor_id(3), 1024, 0.0),
    ]


def test_a_cordoned_hypervisor_gets_no_guest_and_says_why():
    view = cluster(hypervisor(1, cordoned="new disks on Monday"), hypervisor(2, memory=100))
    decision = decide_one(view, guest(), CONTROLLER_CANDIDATE_FUNCTIONS)
    assert isinstance(decision, Refused)
    assert (
        "candidate_is_open removed 1 of 2 (cordoned: 1; nearest miss: cordoned: new disks on Monday" in decision.message
    )


def test_guests_of_a_group_are_kept_apart():
    view = cluster(hypervisor(1), hypervisor(2))
    first, second, third = decide(view, [grouped(number) for number in range(3)], CONTROLLER_CANDIDATE_FUNCTIONS)
    assert sorted(places((first, second))) == [hypervisor_id(1), hypervisor_id(2)]
    assert isinstance(third, Refused)
    assert "group_apart: the hypervisor has 1 guest(s) of group 'web', allowed 0" in third.message


def test_a_failure_domain_counts_as_a_whole():
    racks = {1: "r1", 2: "r1", 3: "r2"}
    view = cluster(*(hypervisor(number, metadata={"rack": rack}) for number, rack in racks.items()))
    guests = [grouped(number) for number in range(3)]
    first, second, third = decide(view, guests, CONTROLLER_CANDIDATE_FUNCTIONS, domain="rack")
    assert {racks[int(place[-1])] for place in places((first, second))} == {"r1", "r2"}
    assert isinstance(third, Refused)
    assert "group_apart: rack r1 has 1 guest(s) of group 'web'" in third.message


def test_guests_that_belong_together_go_where_the_first_went():
    view = cluster(*(hypervisor(number, memory=3072) for number in range(1, 6)))
    guests = [grouped(number, group_policy="together") for number in range(4)]
    decisions = decide(view, guests, CONTROLLER_CANDIDATE_FUNCTIONS)
    assert len(set(places(decisions[:3]))) == 1
    assert isinstance(decisions[3], Refused)
    assert "group_together: all 3 guest(s) of group 'web' are elsewhere" in decisions[3].message


def test_an_unknown_policy_is_refused():
    decision = decide_one(cluster(hypervisor()), grouped(1, group_policy="near"), CONTROLLER_CANDIDATE_FUNCTIONS)
    assert isinstance(decision, Refused)
    assert decision.message == "group_policy must be one of apart, together, got 'near'"


def test_other_groups_and_guests_without_one_do_not_matter():
    view = cluster(hypervisor(1))
    decisions = decide(view, [grouped(1), guest(2), grouped(3, group="db")], CONTROLLER_CANDIDATE_FUNCTIONS)
    assert places(decisions) == [hypervisor_id(1)] * 3


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 100])
def test_a_guests_order_takes_every_hypervisor_once(count):
    probe = probe_of("any", prime_from(count))
    walked = [(probe.start + step * probe.stride) % probe.size for step in range(probe.size)]
    assert sorted(walked) == list(range(probe.size))
    assert [probe.rank(ordinal) for ordinal in walked] == list(range(probe.size))


def test_the_random_order_is_even():
    view = cluster(*(hypervisor(number, memory=10**9, total=hypervisor(1, 10**9).total) for number in range(20)))
    chosen = Counter(
        places(tuple(decide_one(view, guest(number), DEFAULT_CANDIDATE_FUNCTIONS) for number in range(2000)))
    )
    assert len(chosen) == 20
    assert max(chosen.values()) < 150
