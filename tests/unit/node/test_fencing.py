"""Who may start a guest: the decision on every reading that the store can give."""

from __future__ import annotations

import pytest

from lochness import keys
from lochness.errors import ConflictError
from lochness.identity import new_id
from lochness.model.guest import Binding, GuestRecord
from lochness.model.hypervisor import HeartbeatRecord
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Delete, Put
from lochness_node.fencing import StartRefused, decide_start, start_selectors, this_machine, verify_start

HERE, ELSEWHERE = new_id(), new_id()


@pytest.fixture
def store():
    with MemoryStore() as store:
        yield store


def place(store, hypervisor_id: str, *, named: str | None = None) -> tuple[str, int]:
    """A guest bound to `hypervisor_id`; its record names `named`. Answers its id and the binding's revision."""
    guest_id = new_id()
    record = GuestRecord(id=guest_id, hypervisor=hypervisor_id if named is None else named)
    revision = store.commit(
        [],
        [
            Put(keys.hypervisor_guest(hypervisor_id, guest_id), Binding(memory=64).to_json()),
            Put(keys.guest(guest_id), record.to_json()),
        ],
    )
    return guest_id, revision


def beat(store, machine: str = "") -> None:
    record = HeartbeatRecord(host="hv", machine=machine)
    store.commit([], [Put(keys.hypervisor_heartbeat(HERE), record.to_json(), store.grant_lease(30))])


def refused(store, guest_id: str) -> ConflictError:
    with pytest.raises(ConflictError) as caught:
        verify_start(store, HERE, guest_id)
    assert guest_id in caught.value.message
    assert HERE in caught.value.message
    assert caught.value.keys
    return caught.value


def test_the_token_is_the_revision_of_the_binding(store):
    beat(store)
    guest_id, revision = place(store, HERE)
    store.commit([], [Put(keys.guest_power(guest_id), b"{}")])
    assert verify_start(store, HERE, guest_id) == revision


def test_no_start_without_a_lease(store):
    guest_id, _ = place(store, HERE)
    assert refused(store, guest_id).reason == "lease_missing"


def test_no_start_after_the_lease_was_revoked(store):
    lease_id = store.grant_lease(30)
    store.commit([], [Put(keys.hypervisor_heartbeat(HERE), HeartbeatRecord().to_json(), lease_id)])
    guest_id, _ = place(store, HERE)
    store.revoke_lease(lease_id)
    assert refused(store, guest_id).reason == "lease_missing"


def test_no_start_of_a_guest_that_is_bound_elsewhere(store):
    beat(store)
    guest_id, _ = place(store, ELSEWHERE)
    error = refused(store, guest_id)
    assert error.reason == "bound_elsewhere"
    assert ELSEWHERE in error.message


def test_no_start_by_a_binding_that_the_record_contradicts(store):
    beat(store)
    guest_id, _ = place(store, HERE, named=ELSEWHERE)
    assert refused(store, guest_id).reason == "bound_elsewhere"


def test_no_start_without_a_binding(store):
    beat(store)
    guest_id, _ = place(store, HERE)
    store.commit([], [Delete(keys.hypervisor_guest(HERE, guest_id))])
    assert refused(store, guest_id).reason == "not_bound_here"


def test_no_start_of_an_unplaced_guest(store):
    beat(store)
    guest_id, _ = place(store, HERE, named="")
    assert refused(store, guest_id).reason == "not_bound_here"


def test_no_start_of_a_guest_without_a_record(store):
    beat(store)
    guest_id, _ = place(store, HERE)
    store.commit([], [Delete(keys.guest(guest_id))])
    assert refused(store, guest_id).reason == "not_bound_here"


@pytest.mark.parametrize(
    ("beating", "here", "allowed"),
    [("a", "a", True), ("a", "b", False), ("", "b", True), ("a", "", True), ("", "", True)],
)
def test_a_lease_of_another_machine_under_our_id_is_not_ours(store, beating, here, allowed):
    beat(store, beating)
    guest_id, revision = place(store, HERE)
    answer = decide_start(store.read(*start_selectors(HERE, guest_id)), HERE, guest_id, here)
    assert (answer == revision) is allowed
    if isinstance(answer, StartRefused):
        assert answer.reason == "lease_missing"


def test_our_own_heartbeat_is_of_this_machine(store):
    beat(store, this_machine())
    guest_id, revision = place(store, HERE)
    assert verify_start(store, HERE, guest_id) == revision
