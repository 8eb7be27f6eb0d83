"""What a beat does about the key, for every key it can find."""

from __future__ import annotations

import pytest

from lochness.identity import new_id
from lochness.model.hypervisor import HeartbeatRecord
from lochness_node.heartbeat.decide import (
    AwaitEnd,
    Beating,
    Own,
    Refuse,
    Seen,
    StandBack,
    WriteKey,
    decide,
    is_other_machine,
)

ID = new_id()
OURS = HeartbeatRecord(host="here", machine="m1", pid=1, ttl_s=30)
THEIRS = HeartbeatRecord(host="there", machine="m2", pid=2, ttl_s=20, since="2026-01-01T00:00:00+00:00")


def decided(seen: Seen, *, lease_id: int = 0, has_written: bool = False):
    return decide(ID, Own("here", "m1", lease_id, has_written), seen)


@pytest.mark.parametrize("lease_id", [0, 7])
@pytest.mark.parametrize("holder", [None, OURS, THEIRS])
def test_an_unregistered_hypervisor_never_looks_alive(lease_id, holder):
    assert decided(Seen(False, holder, 7, 3), lease_id=lease_id) == StandBack()


@pytest.mark.parametrize("lease_id", [0, 7])
def test_a_missing_key_is_written(lease_id):
    assert decided(Seen(True), lease_id=lease_id) == WriteKey(expected_revision=0)


def test_a_key_under_our_lease_needs_nothing():
    assert decided(Seen(True, OURS, 7, 3), lease_id=7, has_written=True) == Beating()


def test_a_key_without_a_lease_is_not_taken_for_ours():
    assert decided(Seen(True, OURS, 0, 3)) == WriteKey(expected_revision=3)


def test_what_a_killed_predecessor_left_is_taken_over_at_once():
    assert decided(Seen(True, OURS, 6, 3)) == WriteKey(expected_revision=3)


def test_a_lease_granted_but_not_yet_written_takes_over_too():
    assert decided(Seen(True, OURS, 6, 3), lease_id=7) == WriteKey(expected_revision=3)


def test_a_daemon_that_was_taken_over_on_its_machine_ends():
    action = decided(Seen(True, HeartbeatRecord(host="here", machine="m1", pid=9), 8, 4), lease_id=7, has_written=True)
    assert isinstance(action, Refuse)
    assert "pid 9" in action.text
    assert ID in action.text


@pytest.mark.parametrize("age_s", [0.0, 39.0, 40.0])
def test_another_machines_key_gets_two_lifetimes_to_vanish(age_s):
    assert decided(Seen(True, THEIRS, 8, 4, age_s)) == AwaitEnd(THEIRS, 40.0)


def test_another_machines_key_that_stays_is_refused_by_name():
    action = decided(Seen(True, THEIRS, 8, 4, 40.1))
    assert isinstance(action, Refuse)
    for word in ("there", "m2", ID, "40 s"):
        assert word in action.text


def test_another_machines_key_is_never_written_over():
    for lease_id in (0, 7):
        for has_written in (False, True):
            for age_s in (0.0, 1e6):
                action = decided(Seen(True, THEIRS, 8, 4, age_s), lease_id=lease_id, has_written=has_written)
                assert isinstance(action, AwaitEnd | Refuse)


@pytest.mark.parametrize(
    ("own", "holder", "other"),
    [
        (("a", "m1"), ("b", "m1"), False),  # renamed while its daemon was dead
        (("a", "m1"), ("a", "m2"), True),  # two machines of one name
        (("a", ""), ("a", "m2"), False),
        (("a", ""), ("b", ""), True),
        (("a", "m1"), ("", ""), False),  # nobody's
    ],
)
def test_machines_are_told_apart_by_id_then_by_name(own, holder, other):
    assert is_other_machine(Own(own[0], own[1], 0, False), HeartbeatRecord(host=holder[0], machine=holder[1])) is other
