"""WIRE.md section 2: /hypervisors."""

from __future__ import annotations

from typing import Any

import pytest

from lochness import keys
from lochness.store.protocol import Delete, Put

RECORD = (
    '{{"id":"{id}","metadata":{{}},"ip":"10.100.101.35","netmask":"255.255.255.255","gateway":"10.100.101.35",'
    '"mac":"01:23:45:67:89:ac","total_resources":{{"memory":1024,"disk":1024,"cpu":1}},'
    '"available_resources":{{"memory":1024,"disk":1024,"cpu":1}}'
)

FIELDS = {
    "ip": "10.100.101.35",
    "netmask": "255.255.255.255",
    "gateway": "10.100.101.35",
    "mac": "01:23:45:67:89:AC",
    "total_resources": {"memory": 1024, "disk": 1024, "cpu": 1},
    "available_resources": {"memory": 1024, "disk": 1024, "cpu": 1},
}


def settled(hypervisor: dict[str, Any]) -> dict[str, Any]:
    """Without since when its heartbeat is missed: that is told a moment after it was made."""
    return {name: value for name, value in hypervisor.items() if name != "lost_since"}


def test_a_hypervisor_is_created_with_its_resources_and_read_in_wire_order(api):
    answer = api.post("/hypervisors", json=FIELDS)
    assert answer.status_code == 201
    wanted = RECORD.format(id=answer.json()["id"]) + ',"alive":false'
    assert answer.text == wanted + "}\n"
    assert api.get(f"/hypervisors/{answer.json()['id']}").text.startswith(wanted)


def test_nothing_but_braces_is_enough(api):
    made = api.made("/hypervisors", {})
    assert made["metadata"] == {}
    assert made["ip"] == made["mac"] == ""
    assert made["total_resources"] == {"memory": 0, "disk": 0, "cpu": 0}
    assert made in [settled(each) for each in api.get("/hypervisors").json()]


def test_an_id_that_exists_already_is_409(api):
    made = api.made("/hypervisors", {"ip": "10.0.0.1"})
    answer = api.post("/hypervisors", json={"id": made["id"].upper()})
    assert answer.status_code == 409
    assert answer.json()["reason"] == "already_exists"
    assert settled(api.get(f"/hypervisors/{made['id']}").json()) == made


def test_patch_changes_only_the_fields_in_the_body(api):
    made = api.made("/hypervisors", {**FIELDS, "metadata": {"rack": "1", "row": "a"}})
    path = f"/hypervisors/{made['id']}"
    changed = settled(api.patch(path, json={"ip": "10.100.101.36"}).json())
    assert changed == {**made, "ip": "10.100.101.36"}
    changed = api.patch(path, json={"metadata": {"rack": "2"}}).json()
    assert changed["metadata"] == {"rack": "2"}
    changed = settled(api.patch(path, json={"total_resources": {"memory": 4096}}).json())
    assert changed["total_resources"] == {"memory": 4096, "disk": 1024, "cpu": 1}
    assert changed["available_resources"] == made["available_resources"]
    assert settled(api.get(path).json()) == changed


def test_patch_does_not_change_the_id(api):
    made = api.made("/hypervisors", {})
    answer = api.patch(f"/hypervisors/{made['id']}", json={"id": "00000000-0000-4000-8000-000000000001"})
    assert answer.status_code == 400
    assert answer.json()["field"] == "id"
    assert api.patch(f"/hypervisors/{made['id']}", json={"id": made["id"], "ip": "10.0.0.9"}).status_code == 200


def test_delete_answers_the_record(api):
    made = api.made("/hypervisors", FIELDS)
    answer = api.delete(f"/hypervisors/{made['id']}")
    assert answer.status_code == 200
    assert settled(answer.json()) == made
    assert api.get(f"/hypervisors/{made['id']}").status_code == 404


def test_a_hypervisor_with_guests_is_not_deleted(cluster):
    guest = cluster.running_guest()
    path = f"/hypervisors/{cluster.hypervisor}"
    assert cluster.api.get(f"{path}/guests").json() == [guest["id"]]
    answer = cluster.api.delete(path)
    assert answer.status_code == 409
    assert answer.json()["reason"] == "has_guests"
    cluster.api.finished(cluster.api.delete(f"/guests/{guest['id']}"))
    assert cluster.api.get(f"{path}/guests").json() == []
    assert cluster.api.delete(path).status_code == 200
    assert cluster.keys_with(cluster.hypervisor) == []


def test_config_is_set_and_unset_and_answered_whole(api):
    path = f"/hypervisors/{api.made('/hypervisors', {})['id']}/config"
    assert api.get(path).json() == {}
    assert api.patch(path, json={"bar": "baz", "deep/key": "x"}).json() == {"bar": "baz", "deep/key": "x"}
    assert api.patch(path, json={"bar": "", "foobar": "asdf"}).json() == {"deep/key": "x", "foobar": "asdf"}
    assert api.get(path).json() == {"deep/key": "x", "foobar": "asdf"}
    answer = api.patch(path, json={"foobar": 17, "new": "x"})
    assert answer.status_code == 400
    assert api.get(path).json() == {"deep/key": "x", "foobar": "asdf"}


def test_subnets_are_mapped_to_bridges(api):
    path = f"/hypervisors/{api.made('/hypervisors', {})['id']}/subnets"
    range_ = {"cidr": "10.1.0.0/24", "start": "10.1.0.2", "end": "10.1.0.9"}
    first, second = (api.made("/subnets", range_)["id"] for _ in range(2))
    assert api.get(path).json() == {}
    assert api.patch(path, json={first: "br0"}).json() == {first: "br0"}
    assert api.patch(path, json={second.upper(): "br1"}).json() == {first: "br0", second: "br1"}
    assert api.patch(path, json={first: "br2"}).json() == {first: "br2", second: "br1"}
    assert api.delete(f"{path}/{first}").json() == {second: "br1"}
    assert api.delete(f"{path}/{first}").status_code == 404


@pytest.mark.parametrize("bridge", ["", "a/b", " br0"])
def test_a_bridge_is_a_name(api, bridge):
    path = f"/hypervisors/{api.made('/hypervisors', {})['id']}/subnets"
    subnet = api.made("/subnets", {"cidr": "10.1.0.0/24", "start": "10.1.0.2", "end": "10.1.0.9"})["id"]
    assert api.patch(path, json={subnet: bridge}).status_code == 400
    assert api.get(path).json() == {}


def test_a_subnet_that_does_not_exist_is_not_mapped(api):
    path = f"/hypervisors/{api.made('/hypervisors', {})['id']}/subnets"
    unknown = "00000000-0000-4000-8000-00000000000a"
    answer = api.patch(path, json={unknown: "br0"})
    assert answer.status_code == 404
    assert answer.json()["id"] == unknown


@pytest.mark.parametrize("part", ["config", "subnets", "guests"])
def test_the_parts_of_an_unknown_hypervisor_are_404(api, part):
    path = f"/hypervisors/00000000-0000-4000-8000-00000000000b/{part}"
    assert api.get(path).status_code == 404


def test_since_when_it_is_alive_and_why_it_takes_no_guests(cluster):
    path = f"/hypervisors/{cluster.hypervisor}"
    assert {"alive_since", "cordoned"}.isdisjoint(cluster.api.get(path).json())  # its heartbeat does not tell
    heartbeat = Put(keys.hypervisor_heartbeat(cluster.hypervisor), b'{"since":"2026-02-01T00:00:00Z"}')
    cluster.store.commit((), (heartbeat,))
    assert cluster.api.get(path).json()["alive_since"] == "2026-02-01T00:00:00Z"
    cluster.api.patch(f"{path}/config", json={"cordoned": "new disks", "other": "setting"})
    assert cluster.api.get(path).json()["cordoned"] == "new disks"
    listed = {entry["id"]: entry for entry in cluster.api.get("/hypervisors").json()}
    assert listed[cluster.hypervisor] == cluster.api.get(path).json()
    cluster.api.patch(f"{path}/config", json={"cordoned": ""})
    cluster.store.commit((), (Delete(keys.hypervisor_heartbeat(cluster.hypervisor)),))
    assert {"alive_since", "cordoned"}.isdisjoint(cluster.api.get(path).json())


def test_alive_follows_the_heartbeat(cluster):
    path = f"/hypervisors/{cluster.hypervisor}"
    assert cluster.api.get(path).json()["alive"] is True
    cluster.store.commit((), (Delete(keys.hypervisor_heartbeat(cluster.hypervisor)),))
    assert cluster.api.get(path).json()["alive"] is False
    listed = {entry["id"]: entry["alive"] for entry in cluster.api.get("/hypervisors").json()}
    assert listed[cluster.hypervisor] is False
