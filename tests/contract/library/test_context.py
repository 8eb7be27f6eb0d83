"""The library on memory and on etcd: the same calls, the same state of the world."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest

from lochness import keys
from lochness.capacity import Policy
from lochness.context import Context
from lochness.errors import ConflictError, NoCandidateError, NotFoundError, ValidationError
from lochness.identity import set_hypervisor_id
from lochness.ids import new_id, parse_id
from lochness.model.address import guest_mac
from lochness.model.fwgroup import FWRule
from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.store.faults import FaultyStore
from lochness.store.protocol import Key, Prefix, Put, Store
from tests.contract.library.conftest import Scene


def test_what_is_saved_is_found_under_every_spelling_of_its_id(scene: Scene):
    context, flavor = scene.context, scene.flavor
    for spelling in (flavor.id, flavor.id.upper(), f"{{{flavor.id}}}", f"urn:uuid:{flavor.id}"):
        assert context.flavor(spelling).to_json() == flavor.to_json()


@pytest.mark.parametrize("kind", ["flavor", "image", "guest", "hypervisor", "network", "subnet"])
def test_an_unknown_id_is_not_found_and_a_malformed_one_invalid(context: Context, kind):
    with pytest.raises(NotFoundError) as missing:
        getattr(context, kind)(new_id())
    assert missing.value.kind == kind
    assert Context.is_key_not_found(missing.value)
    with pytest.raises(ValidationError):
        getattr(context, kind)("web-1")


def test_saving_over_a_change_is_a_conflict_and_loses_nothing(scene: Scene):
    mine, theirs = scene.context.guest(scene.new_guest().id), None
    theirs = scene.context.guest(mine.id)
    theirs.metadata["who"] = "them"
    theirs.save()
    mine.metadata["who"] = "me"
    with pytest.raises(ConflictError) as conflict:
        mine.save()
    assert conflict.value.reason == "changed_meanwhile"
    assert scene.context.guest(mine.id).metadata == {"who": "them"}
    mine.refresh()
    assert mine.metadata == {"who": "them"}
    mine.metadata["who"] = "me"
    mine.save()
    mine.save()
    assert scene.context.guest(mine.id).metadata == {"who": "me"}


def test_a_second_object_with_the_same_id_exists_already(scene: Scene):
    again = scene.context.new_network()
    again.id = scene.network.id
    with pytest.raises(ConflictError) as conflict:
        again.save()
    assert conflict.value.reason == "already_exists"


def test_saving_an_invalid_record_writes_nothing(scene: Scene):
    before = scene.all_keys()
    guest = scene.context.new_guest()
    with pytest.raises(ValidationError) as refused:
        guest.save()
    assert refused.value.field == "flavor"
    assert scene.all_keys() == before


def test_unknown_fields_of_a_newer_version_survive_a_save(scene: Scene, store: Store):
    guest = scene.new_guest()
    newer = guest.to_fields() | {"future": [1]}
    store.commit((), (Put(keys.guest(guest.id), GuestRecord.from_fields(newer).to_json()),))
    guest.refresh()
    guest.metadata["name"] = "web"
    guest.save()
    assert scene.context.guest(guest.id).to_fields()["future"] == [1]


def test_a_subnet_and_its_network_are_linked_on_both_sides(scene: Scene):
    assert scene.network.subnets() == [scene.subnet.id]
    assert scene.context.subnet(scene.subnet.id).network == scene.network.id
    scene.network.remove_subnet(scene.subnet)
    assert scene.network.subnets() == []
    assert scene.context.subnet(scene.subnet.id).network == ""


def test_a_subnet_belongs_to_one_network_only(scene: Scene):
    other = scene.context.new_network()
    other.save()
    with pytest.raises(ConflictError) as conflict:
        other.add_subnet(scene.subnet)
    assert conflict.value.reason == "in_other_network"
    with pytest.raises(ConflictError):
        other.remove_subnet(scene.subnet)
    assert other.subnets() == []


def test_deleting_a_subnet_takes_its_link_along(scene: Scene):
    scene.subnet.reserve_address(new_id())
    scene.subnet.delete()
    assert scene.network.subnets() == []
    assert not [key for key in scene.all_keys() if key.startswith(keys.subnet_prefix(scene.subnet.id))]


def test_an_address_is_reserved_once_and_can_be_released(scene: Scene):
    guests = [new_id() for _ in range(3)]
    taken = {scene.subnet.reserve_address(guest): guest for guest in guests}
    assert set(taken) == {"10.0.0.10", "10.0.0.11", "10.0.0.12"}
    assert scene.subnet.addresses() == taken
    with pytest.raises(ConflictError) as conflict:
        scene.subnet.reserve_address(new_id())
    assert conflict.value.reason == "no_free_address"
    scene.subnet.release_address("10.0.0.11")
    assert [str(address) for address in scene.subnet.available_addresses()] == ["10.0.0.11"]


def test_add_guest_binds_claims_and_addresses_in_one_revision(scene: Scene, store: Store):
    guest = scene.new_guest()
    scene.hypervisor.add_guest(guest)
    assert (guest.hypervisor, guest.subnet, guest.ip, guest.bridge) == (
        scene.hypervisor.id,
        scene.subnet.id,
        "10.0.0.10",
        "br0",
    )
    assert scene.context.guest(guest.id).to_json() == guest.to_json()
    assert scene.hypervisor.guests() == [guest.id]
    assert scene.subnet.addresses() == {"10.0.0.10": guest.id}
    reading = store.read(
        Key(keys.guest(guest.id)),
        Key(keys.hypervisor_guest(scene.hypervisor.id, guest.id)),
        Key(keys.subnet_address(scene.subnet.id, guest.ip)),
    )
    assert {item.mod_revision for items in reading.ranges for item in items} == {guest.revision}
    guest.metadata["name"] = "web"
    guest.save()


def test_a_guest_that_does_not_fit_changes_nothing(scene: Scene):
    for _ in range(3):
        scene.hypervisor.add_guest(scene.new_guest())
    scene.hypervisor.total_resources = Resources(memory=1000, disk=100_000, cpu=4)
    scene.hypervisor.save()
    scene.subnet.end = "10.0.0.200"
    scene.subnet.save()
    guest = scene.new_guest()
    before = scene.all_keys()
    with pytest.raises(NoCandidateError) as refused:
        scene.hypervisor.add_guest(guest)
    assert "insufficient_memory: wanted 256 MB, had 232 MB" in str(refused.value)
    assert scene.all_keys() == before
    assert guest.hypervisor == ""


def test_a_placed_guest_is_not_placed_twice(scene: Scene):
    guest = scene.new_guest()
    stale = scene.context.guest(guest.id)
    scene.hypervisor.add_guest(guest)
    with pytest.raises(ConflictError) as again:
        scene.hypervisor.add_guest(guest)
    assert again.value.reason == "already_placed"
    with pytest.raises(ConflictError) as behind:
        scene.hypervisor.add_guest(stale)
    assert behind.value.reason == "changed_meanwhile"
    assert len(scene.subnet.addresses()) == 1


def test_racing_callers_neither_overcommit_nor_share_an_address(scene: Scene):
    scene.subnet.end = "10.0.0.200"
    scene.subnet.save()
    guests = [scene.new_guest() for _ in range(12)]  # there is room for 4
    start = threading.Barrier(6)
    outcomes: list[str] = []

    def place(mine: list) -> None:
        hypervisor = scene.context.hypervisor(scene.hypervisor.id)
        start.wait(timeout=10)
        for guest in mine:
            try:
                hypervisor.add_guest(guest)
                outcomes.append("placed")
            except NoCandidateError:
                outcomes.append("refused")

    threads = [threading.Thread(target=place, args=(guests[n::6],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=40)
    assert sorted(outcomes) == ["placed"] * 4 + ["refused"] * 8
    bound = scene.hypervisor.guests()
    assert len(bound) == 4
    assert sorted(scene.subnet.addresses().values()) == bound


def test_remove_guest_gives_back_what_add_guest_took(scene: Scene):
    guest = scene.new_guest()
    before = scene.all_keys()
    scene.hypervisor.add_guest(guest)
    scene.hypervisor.remove_guest(guest)
    assert scene.all_keys() == before
    assert not scene.context.guest(guest.id).is_placed
    with pytest.raises(NotFoundError):
        scene.hypervisor.remove_guest(guest)


def test_destroying_a_guest_leaves_no_key_of_it(scene: Scene, store: Store):
    before = scene.all_keys()
    guest = scene.new_guest()
    scene.hypervisor.add_guest(guest)
    store.commit((), (Put(keys.guest_power(guest.id), b"{}"), Put(keys.guest_status(guest.id), b"{}")))
    guest.destroy()
    assert scene.all_keys() == before


def test_a_hypervisor_with_guests_is_not_destroyed(scene: Scene):
    guest = scene.new_guest()
    scene.hypervisor.add_guest(guest)
    with pytest.raises(ConflictError) as conflict:
        scene.hypervisor.destroy()
    assert conflict.value.reason == "has_guests"
    guest.destroy()
    scene.hypervisor.set_config("guestDiskDir", "/srv/guests")
    scene.hypervisor.destroy()
    assert not [key for key in scene.all_keys() if key.startswith(keys.hypervisor_prefix(scene.hypervisor.id))]


def test_a_hypervisors_record_is_joined_and_split(scene: Scene, store: Store):
    stored = store.read(Key(keys.hypervisor(scene.hypervisor.id))).one()
    assert stored is not None
    assert b"resources" not in stored.value
    found = scene.context.hypervisor(scene.hypervisor.id)
    assert found.total_resources == Resources(memory=1024, disk=100_000, cpu=4)
    # The daemon's key changes often; the operator's edit must not conflict with it, nor undo it.
    newer = b'{"total":{"memory":9},"available":{"memory":8},"computed_from":{"reserved_mb":1}}'
    store.commit((), (Put(keys.hypervisor_resources(found.id), newer),))
    found.ip = "192.0.2.8"
    found.save()
    again = scene.context.hypervisor(found.id)
    assert (again.ip, again.total_resources.memory, again.available_resources.memory) == ("192.0.2.8", 9, 8)


def test_configs_are_set_unset_and_listed(scene: Scene):
    context, hypervisor = scene.context, scene.hypervisor
    hypervisor.set_config("a", "1")
    hypervisor.set_configs({"b/c": "2", "a": ""})
    assert context.hypervisor(hypervisor.id).config == {"b/c": "2"} == hypervisor.config
    with pytest.raises(ValidationError):
        hypervisor.set_config("", "x")
    context.set_config("one/two", "3")
    seen: dict[str, str] = {}
    context.for_each_config(seen.__setitem__)
    assert seen == {"one/two": "3"}
    assert context.get_config("one/two") == "3"
    with pytest.raises(NotFoundError):
        context.get_config("nothing")
    for empty in ("", "/"):
        with pytest.raises(ValidationError):
            context.set_config(empty, "x")


def test_mapping_needs_both_and_names_what_is_missing(scene: Scene):
    with pytest.raises(NotFoundError) as missing:
        scene.hypervisor.map_subnets({scene.subnet.id: "br1", (gone := new_id()): "br2"})
    assert (missing.value.kind, missing.value.id) == ("subnet", gone)
    assert scene.hypervisor.subnets() == {scene.subnet.id: "br0"}
    for bad in ("", "br 0 ", "../x"):
        with pytest.raises(ValidationError):
            scene.hypervisor.add_subnet(scene.subnet, bad)
    scene.hypervisor.remove_subnet(scene.subnet)
    assert scene.hypervisor.subnets() == {}
    with pytest.raises(NotFoundError):
        scene.hypervisor.remove_subnet(scene.subnet)


def test_candidates_are_judged_on_one_snapshot_with_the_tally(scene: Scene, store: Store):
    guest = scene.new_guest()
    with pytest.raises(NoCandidateError) as refused:
        guest.candidates()
    assert "candidate_is_alive removed 1 of 1 (heartbeat_missing: 1" in str(refused.value)
    store.commit((), (Put(keys.hypervisor_heartbeat(scene.hypervisor.id), b"{}"),))
    assert scene.hypervisor.is_alive()
    assert [candidate.id for candidate in guest.candidates()] == [scene.hypervisor.id]
    assert [candidate.id for candidate in guest.candidates(lambda _, hypervisors: hypervisors)] == [scene.hypervisor.id]


def test_for_each_stops_at_and_passes_on_what_f_raises(scene: Scene):
    guests = [scene.new_guest() for _ in range(3)]
    seen: list[str] = []
    scene.context.for_each_guest(lambda guest: seen.append(guest.id))
    assert sorted(seen) == sorted(guest.id for guest in guests) == [guest.id for guest in scene.context.guests()]
    calls: list[str] = []

    def stop_at_once(guest) -> None:
        calls.append(guest.id)
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        scene.context.for_each_guest(stop_at_once)
    assert len(calls) == 1
    found = scene.context.first_hypervisor(lambda hypervisor: hypervisor.ip == "192.0.2.7")
    assert found is not None
    assert found.id == scene.hypervisor.id
    assert scene.context.first_hypervisor(lambda _: False) is None


def test_verify_on_hv_knows_this_machine(scene: Scene):
    set_hypervisor_id(new_id())
    with pytest.raises(ValidationError):
        scene.hypervisor.verify_on_hv()
    set_hypervisor_id(scene.hypervisor.id)
    scene.hypervisor.verify_on_hv()


def test_a_vlan_and_its_groups_are_linked_on_both_sides(context: Context):
    vlan = context.new_vlan()
    assert vlan.tag == 1
    vlan.tag = 123
    vlan.save()
    group = context.new_vlangroup()
    group.save()
    for _ in range(2):
        group.add_vlan(vlan)
        assert (vlan.vlangroups(), group.vlans()) == ([group.id], [123])
    for _ in range(2):
        group.remove_vlan(vlan)
        assert (vlan.vlangroups(), group.vlans()) == ([], [])


def test_links_are_set_as_a_whole_and_only_to_what_exists(context: Context, store: Store):
    groups = [context.new_vlangroup() for _ in range(3)]
    for group in groups:
        group.save()
    for tag in range(1, 201):
        vlan = context.new_vlan()
        vlan.tag = tag
        vlan.save()
    first = context.vlan("1")
    first.set_vlangroups([groups[0].id, groups[1].id.upper(), groups[0].id])
    first.set_vlangroups([groups[1].id, groups[2].id])
    assert first.vlangroups() == sorted([groups[1].id, groups[2].id])
    assert [group.vlans() for group in groups] == [[], [1], [1]]
    groups[0].set_vlans(range(1, 201))
    groups[0].set_vlans([*range(100, 201), 100])
    assert groups[0].vlans() == list(range(100, 201))
    with pytest.raises(NotFoundError) as missing:
        groups[0].set_vlans([7, 4000])
    assert (missing.value.kind, missing.value.id) == ("vlan", "4000")
    with pytest.raises(NotFoundError) as no_group:
        first.set_vlangroups([gone := new_id()])
    assert (no_group.value.kind, no_group.value.id) == ("vlangroup", gone)
    groups[0].destroy()
    assert context.vlan(150).vlangroups() == []
    first.destroy()
    assert groups[1].vlans() == []
    left = {item.key for item in store.read(Prefix(keys.VLAN_PATH, keys_only=True)).ranges[0]}
    assert left == {keys.vlan(str(tag)) for tag in range(2, 201)}
    assert [vlan.tag for vlan in context.vlans()] == list(range(2, 201))


@pytest.mark.parametrize("tag", [0, 4096, -1, "x", "", "1.5", "٣"])
def test_a_tag_is_1_to_4095(context: Context, tag):
    with pytest.raises(ValidationError) as refused:
        context.vlan(tag)
    assert refused.value.field == "tag"


def test_a_network_with_subnets_is_not_destroyed(scene: Scene):
    with pytest.raises(ConflictError) as conflict:
        scene.network.destroy()
    assert conflict.value.reason == "has_subnets"
    scene.network.remove_subnet(scene.subnet)
    scene.network.destroy()
    assert not [key for key in scene.all_keys() if key.startswith(keys.NETWORK_PATH)]


def test_a_firewall_groups_rules_survive(context: Context):
    group = context.new_fwgroup()
    group.rules = [
        FWRule(source="10.0.0.7/8", port_start=22, port_end=22, protocol="tcp", action="allow"),
        FWRule(group=new_id().upper(), action="deny"),
    ]
    group.save()
    found = context.fwgroup(group.id)
    assert found.to_json() == group.to_json()
    assert [rule.source for rule in found.rules] == ["10.0.0.0/8", None]
    assert b'"portStart":22' in found.to_json()
    assert found.to_json().count(b'"source"') == 1
    found.rules[0].port_end = 21
    with pytest.raises(ValidationError) as refused:
        found.save()
    assert refused.value.field == "rules[0].portStart"
    context.for_each_fwgroup(lambda each: each.destroy())
    assert list(context.fwgroups()) == []


def test_a_heartbeat_is_one_lease_however_often_it_beats(scene: Scene, store: Store):
    hypervisor, key = scene.hypervisor, keys.hypervisor_heartbeat(scene.hypervisor.id)
    set_hypervisor_id(new_id())
    with pytest.raises(ValidationError):
        hypervisor.heartbeat(30)
    assert not hypervisor.is_alive()
    set_hypervisor_id(hypervisor.id)
    hypervisor.heartbeat(30)
    first = store.read(Key(key)).one()
    hypervisor.heartbeat(30)
    second = store.read(Key(key)).one()
    assert first is not None
    assert first == second
    assert first.lease_id
    store.revoke_lease(first.lease_id)
    assert not hypervisor.is_alive()
    hypervisor.heartbeat(30)
    third = store.read(Key(key)).one()
    assert third is not None
    assert third.lease_id != first.lease_id


KINDS = ["flavor", "fwgroup", "guest", "hypervisor", "image", "network", "subnet", "vlangroup"]


@pytest.mark.parametrize("kind", KINDS)
def test_new_ones_are_blank_with_a_fresh_id(context: Context, kind):
    first, second = (getattr(context, f"new_{kind}")() for _ in range(2))
    assert parse_id(first.id) != parse_id(second.id)
    assert first.revision == 0
    blank = type(first).from_fields({"id": first.id})
    expected = {"mac": guest_mac(first.id), "type": "kvm"} if kind == "guest" else {}
    assert first.to_fields() == blank.to_fields() | expected


@pytest.mark.parametrize("kind", [*KINDS, "vlan"])
def test_a_list_is_one_range_read(scene: Scene, kind):
    scene.hypervisor.add_guest(scene.new_guest())
    vlan, group, firewall = scene.context.new_vlan(), scene.context.new_vlangroup(), scene.context.new_fwgroup()
    for record in (vlan, group, firewall):
        record.save()
    counted = FaultyStore(scene.context.store)
    listed = list(getattr(Context(counted), f"{kind}s")())
    assert counted.calls == ["read"]
    assert len(listed) == 1
    seen: list[object] = []
    getattr(scene.context, f"for_each_{kind}")(seen.append)
    assert seen == listed


def test_status_and_power_are_read_from_their_own_keys(scene: Scene, store: Store):
    guest = scene.new_guest()
    assert (guest.status().state, guest.power().desired) == ("unknown", "running")
    store.commit(
        (),
        (
            Put(keys.guest_status(guest.id), b'{"state":"paused","reason":"asked"}'),
            Put(keys.guest_power(guest.id), b'{"desired":"paused"}'),
        ),
    )
    assert (guest.status().state, guest.power().desired) == ("paused", "paused")


def test_the_guests_bound_here_are_listed_and_fetched(scene: Scene):
    guests = [scene.new_guest() for _ in range(3)]
    for guest in guests[:2]:
        scene.hypervisor.add_guest(guest)
    seen: list[str] = []
    scene.hypervisor.for_each_guest(lambda guest: seen.append(guest.ip))
    assert scene.hypervisor.guests() == sorted(guest.id for guest in guests[:2])
    assert sorted(seen) == ["10.0.0.10", "10.0.0.11"]


@pytest.mark.parametrize(("port", "used"), [(0, 8080), (-1, 8080), (9000, 9000)])
def test_an_agent_is_made_for_a_port(context: Context, port, used):
    with context.new_mistify_agent(port) as agent:
        assert agent.port == used


def test_resources_are_those_of_this_machine_minus_what_its_guests_hold(scene: Scene, tmp_path: Path):
    hypervisor = scene.hypervisor
    hypervisor.add_guest(scene.new_guest())
    set_hypervisor_id(hypervisor.id)
    hypervisor.set_config("guestDiskDir", str(tmp_path))
    hypervisor.update_resources(Policy(reserve_memory_mb=7, reserve_disk_mb=0, guest_overhead_mb=100))
    memory_mb, cpus = psutil.virtual_memory().total >> 20, psutil.cpu_count() or 1
    assert hypervisor.total_resources.memory == memory_mb - 7
    assert hypervisor.available_resources.memory == memory_mb - 7 - 256 - 100
    assert (hypervisor.total_resources.cpu, hypervisor.available_resources.cpu) == (cpus, cpus - 1)
    stored = scene.context.hypervisor(hypervisor.id)
    assert stored.total_resources == hypervisor.total_resources
    assert stored.available_resources == hypervisor.available_resources
    hypervisor.ip = "192.0.2.9"
    hypervisor.save()
