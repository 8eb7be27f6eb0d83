"""Invariants: a store that only used the library is clean; every planted break is found, and its repair mends it."""

from __future__ import annotations

import pytest

from lochness import keys
from lochness.errors import ConflictError
from lochness.identity import new_id
from lochness.invariants import Violation, ViolationKind, check
from lochness.model.guest import Binding
from lochness.model.job import JobRecord
from lochness.store.protocol import Delete, Operation, Prefix, Put, Store
from tests.contract.library.conftest import Scene

GONE = "99999999-0000-4000-8000-000000000000"


def violations(store: Store) -> tuple[Violation, ...]:
    return check(store.read(Prefix(keys.ROOT)).ranges[0])


def test_a_store_that_only_used_the_library_is_clean(scene: Scene, store: Store):
    guests = [scene.new_guest() for _ in range(3)]
    for guest in guests:
        scene.hypervisor.add_guest(guest)
    vlan, group = scene.context.new_vlan(), scene.context.new_vlangroup()
    vlan.save()
    group.save()
    group.add_vlan(vlan)
    scene.context.set_config("any/thing", "x")
    assert violations(store) == ()
    scene.hypervisor.remove_guest(guests[0])
    guests[1].destroy()
    assert violations(store) == ()


def broken(scene: Scene, kind: str) -> list[Operation]:
    """Operations that break one promise of a cluster with one placed guest."""
    guest = scene.new_guest()
    scene.hypervisor.add_guest(guest)
    hypervisor, subnet = scene.hypervisor.id, scene.subnet.id
    match kind:
        case "unreadable_value":
            return [Put(keys.guest_status(guest.id), b"{}"), Put(keys.subnet(GONE), b"{nonsense")]
        case "unknown_key":
            return [Put("lochness/lakes/ness", b"{}")]
        case "part_without_record":
            return [Put(keys.guest_status(GONE), b"{}")]
        case "guest_bound_twice":
            other = scene.context.new_hypervisor()
            other.total_resources = scene.hypervisor.total_resources
            other.save()
            return [Put(keys.hypervisor_guest(other.id, guest.id), Binding().to_json())]
        case "binding_without_guest":
            return [Put(keys.hypervisor_guest(hypervisor, GONE), Binding(memory=1).to_json())]
        case "record_without_binding":
            return [Delete(keys.hypervisor_guest(hypervisor, guest.id))]
        case "address_without_owner":
            return [Put(keys.subnet_address(subnet, "10.0.0.99"), GONE.encode())]
        case "address_not_in_record":
            return [Put(keys.subnet_address(subnet, "10.0.0.99"), guest.id.encode())]
        case "record_without_address":
            return [Delete(keys.subnet_address(subnet, guest.ip))]
        case "address_outside_subnet":
            moved = guest.patched({"ip": "10.9.9.9"})
            return [
                Delete(keys.subnet_address(subnet, guest.ip)),
                Put(keys.subnet_address(subnet, "10.9.9.9"), guest.id.encode()),
                Put(keys.guest(guest.id), moved.to_json()),
            ]
        case "mac_used_twice":
            twin = scene.new_guest()
            return [Put(keys.guest(twin.id), twin.patched({"mac": guest.mac}).to_json())]
        case "hypervisor_overcommitted":
            return [Put(keys.hypervisor_resources(hypervisor), b'{"total":{"memory":255,"disk":99999,"cpu":9}}')]
        case "link_one_sided":
            return [Delete(keys.network_subnet(scene.network.id, subnet))]
        case "job_without_guest":
            job = JobRecord(id=new_id(), guest=GONE, action="fetch", status="working")
            return [Put(keys.job(job.id), job.to_json())]
    raise LookupError(kind)


ACCOMPANIED = {"guest_bound_twice": {"binding_not_in_record", "hypervisor_overcommitted"}}
KINDS = [kind for kind in ViolationKind if kind is not ViolationKind.BINDING_NOT_IN_RECORD]


@pytest.mark.parametrize("kind", KINDS)
def test_each_broken_promise_is_found_and_its_repair_mends_it(scene: Scene, store: Store, kind):
    store.commit((), broken(scene, kind))
    found = violations(store)
    assert {str(violation.kind) for violation in found} - ACCOMPANIED.get(kind, set()) == {kind}
    for violation in found:
        assert violation.text
        if violation.repair is not None:
            assert violation.repair_text
            violation.repair.commit(store)
    without_repair = {violation.kind for violation in found if violation.repair is None}
    assert {violation.kind for violation in violations(store)} == without_repair


def test_a_repair_of_what_has_changed_does_nothing(scene: Scene, store: Store):
    address = keys.subnet_address(scene.subnet.id, "10.0.0.99")
    store.commit((), [Put(address, GONE.encode())])
    (violation,) = violations(store)
    assert violation.repair is not None
    store.commit((), [Put(address, new_id().encode())])
    with pytest.raises(ConflictError):
        violation.repair.commit(store)


def test_a_link_of_vlans_that_stands_on_one_side_is_found(scene: Scene, store: Store):
    vlan, group = scene.context.new_vlan(), scene.context.new_vlangroup()
    vlan.save()
    group.save()
    group.add_vlan(vlan)
    store.commit((), [Delete(keys.vlan_vlangroup("1", group.id))])
    (violation,) = violations(store)
    assert violation.kind == ViolationKind.LINK_ONE_SIDED
    assert violation.repair is not None
    violation.repair.commit(store)
    assert violations(store) == ()


@pytest.mark.parametrize(("status", "found"), [("done", 0), ("working", 1)])
def test_a_job_that_waits_behind_a_delete_that_is_done_breaks_no_promise(scene: Scene, store: Store, status, found):
    delete = JobRecord(id=new_id(), guest=GONE, request="delete", action="delete", status=status)
    waiting = JobRecord(id=new_id(), guest=GONE, request="reboot", action="reboot", status="new")
    store.commit((), [Put(keys.job(job.id), job.to_json()) for job in (delete, waiting)])
    about = [violation.keys[0] for violation in violations(store)]
    assert about.count(keys.job(waiting.id)) == found
