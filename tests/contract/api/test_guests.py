"""WIRE.md section 3: /guests, and what becomes of what is asked."""

from __future__ import annotations

import pytest

from lochness import keys
from lochness.guest_state import LostRecord
from lochness.model.address import guest_mac
from lochness.model.guest import GuestStatus
from lochness.model.resources import Resources, ResourcesRecord
from lochness.store.protocol import Delete, Put

UNKNOWN = "00000000-0000-4000-8000-000000000000"
WIRE_FIELDS = [
    "id", "metadata", "type", "flavor", "hypervisor", "network",
    "subnet", "fwgroup", "vlangroup", "mac", "ip", "bridge",
]  # fmt: skip


def test_a_create_is_accepted_and_becomes_a_running_guest(cluster):
    answer = cluster.create_guest(metadata={"name": "web1"})
    assert answer.status_code == 202
    accepted = answer.json()
    assert list(accepted)[: len(WIRE_FIELDS)] == WIRE_FIELDS
    assert accepted["hypervisor"] == accepted["ip"] == ""
    assert accepted["mac"] == guest_mac(accepted["id"])

    job = cluster.api.finished(answer)
    assert job["status"] == "done"
    assert job["action"] == "create"
    assert [step["action"] for step in job["steps"]] == ["select-hypervisor", "fetch", "create"]

    guest = cluster.api.get(f"/guests/{accepted['id']}").json()
    assert guest["hypervisor"] == cluster.hypervisor
    assert guest["subnet"] == cluster.subnet
    assert guest["bridge"] == "br0"
    assert guest["ip"] == "10.9.0.10"
    assert guest["power"] == "running"
    assert cluster.api.get(f"/subnets/{cluster.subnet}/addresses").json() == {"10.9.0.10": guest["id"]}
    assert cluster.agent.guests[guest["id"]]["state"] == "running"
    assert cluster.violations() == ()


def test_the_agent_is_asked_as_wire_says(cluster):
    guest = cluster.running_guest(metadata={"foo": "bar"})
    fetch, create = cluster.agent.requests
    assert (fetch.method, fetch.path) == ("POST", "/images")
    assert fetch.body == {
        "id": cluster.image,
        "type": "kvm",
        "source": "http://images.example/tiny.qcow2",
        "sha256": "ab" * 32,
        "format": "qcow2",
    }
    assert (create.method, create.path) == ("POST", "/guests")
    assert create.body == {
        "id": guest["id"],
        "type": "kvm",
        "image": cluster.image,
        "nics": [
            {
                "name": "eth0",
                "network": "br0",
                "model": "virtio",
                "mac": guest["mac"],
                "address": "10.9.0.10",
                "netmask": "ffffff00",
                "gateway": "10.9.0.1",
                "vlans": [1],
            }
        ],
        "disks": [{"size": 1024, "image": cluster.image, "source": cluster.image}],
        "memory": 512,
        "cpu": 1,
        "metadata": {"foo": "bar"},
    }


def test_where_a_guest_goes_is_not_taken_from_the_request(cluster):
    guest = cluster.running_guest(hypervisor=UNKNOWN, subnet=UNKNOWN, ip="192.0.2.1", bridge="br9")
    assert guest["hypervisor"] == cluster.hypervisor
    assert guest["ip"] == "10.9.0.10"


@pytest.mark.parametrize("field", ["flavor", "network"])
def test_a_create_without_flavor_or_network_is_400(cluster, field):
    body = {"flavor": cluster.flavor, "network": cluster.network}
    del body[field]
    answer = cluster.api.post("/guests", json=body)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


@pytest.mark.parametrize("field", ["flavor", "network"])
def test_a_flavor_or_network_that_does_not_exist_is_404_and_named(cluster, field):
    before = cluster.api.get("/guests").json()
    answer = cluster.create_guest(**{field: UNKNOWN})
    assert answer.status_code == 404
    assert answer.json()["field"] == field
    assert answer.json()["id"] == UNKNOWN
    assert cluster.api.get("/guests").json() == before


def test_a_guest_that_exists_already_is_409(cluster):
    guest = cluster.running_guest()
    answer = cluster.create_guest(id=guest["id"])
    assert answer.status_code == 409
    assert answer.json()["reason"] == "already_exists"


def test_a_given_id_and_mac_are_kept(cluster):
    id = "94EA0BA1-5EC2-460E-9C2E-8269593CDAD3"
    guest = cluster.running_guest(id=id, mac="02-E4-13-09-B7-B4")
    assert guest["id"] == id.lower()
    assert guest["mac"] == "02:e4:13:09:b7:b4"


def test_a_guest_too_big_for_every_hypervisor_fails_with_the_numbers(cluster):
    big = cluster.api.made("/flavors", {"image": cluster.image, "memory": 99_999, "disk": 1024, "cpu": 1})["id"]
    answer = cluster.create_guest(flavor=big)
    job = cluster.api.finished(answer)
    assert job["status"] == "error"
    assert job["reason"] == "no_candidate"
    assert "candidate_has_resources removed" in job["error"]
    assert f"insufficient_memory: wanted 99999 MB, had 8192 MB on hypervisor {cluster.hypervisor}" in job["error"]
    resources = next(
        entry for entry in job["explanation"]["functions"] if entry["function"] == "candidate_has_resources"
    )
    assert resources["reasons"] == {"insufficient_memory": 1}
    assert cluster.api.get(f"/guests/{answer.json()['id']}").json()["hypervisor"] == ""


def test_no_address_left_fails_with_the_numbers(cluster):
    api = cluster.api
    network = api.made("/networks", {})["id"]
    range_ = {"cidr": "10.8.0.0/30", "start": "10.8.0.2", "end": "10.8.0.2", "network": network}
    subnet = api.made("/subnets", range_)["id"]
    api.patch(f"/hypervisors/{cluster.hypervisor}/subnets", json={subnet: "br1"})
    assert api.finished(cluster.create_guest(network=network))["status"] == "done"
    job = api.finished(cluster.create_guest(network=network))
    assert job["status"] == "error"
    assert "no_free_address: 1" in job["error"]
    refused = next(entry for entry in job["explanation"]["functions"] if entry["function"] == "candidate_has_subnet")
    assert refused["reasons"]["no_free_address"] == 1


@pytest.mark.parametrize(
    ("action", "power", "state"),
    [
        ("shutdown", "stopped", "stopped"),
        ("poweroff", "stopped", "stopped"),
        ("start", "running", "running"),
        ("reboot", "running", "running"),
        ("restart", "running", "running"),
        ("suspend", "paused", "paused"),
        ("resume", "running", "running"),
    ],
)
def test_an_action_is_a_job_and_changes_what_the_guest_should_be(cluster, action, power, state):
    guest = cluster.running_guest()
    answer = cluster.api.post(f"/guests/{guest['id']}/{action}")
    assert answer.json()["power"] == power
    job = cluster.api.finished(answer)
    assert (job["status"], job["action"], job["request"]) == ("done", action, action)
    assert cluster.agent.guests[guest["id"]]["state"] == state


def test_an_unknown_action_is_404_and_makes_no_job(cluster):
    guest = cluster.running_guest()
    assert cluster.api.post(f"/guests/{guest['id']}/explode").status_code == 404
    assert len(cluster.api.get("/jobs", params={"guest": guest["id"]}).json()) == 1
    assert cluster.api.post(f"/guests/{UNKNOWN}/start").status_code == 404


def test_an_action_that_the_agent_fails_ends_in_its_words(cluster):
    guest = cluster.running_guest()
    cluster.agent.fail_next("reboot", "the domain does not obey")
    job = cluster.api.finished(cluster.api.post(f"/guests/{guest['id']}/reboot"))
    assert (job["status"], job["error"], job["reason"]) == ("error", "the domain does not obey", "agent_job_failed")


def test_delete_leaves_nothing(cluster):
    guest = cluster.running_guest()
    assert len(cluster.keys_with(guest["id"])) == 3  # record, power, binding
    answer = cluster.api.delete(f"/guests/{guest['id']}")
    assert answer.json()["id"] == guest["id"]
    job = cluster.api.finished(answer)
    assert (job["status"], job["action"]) == ("done", "delete")
    assert cluster.api.get(f"/guests/{guest['id']}").status_code == 404
    assert cluster.keys_with(guest["id"]) == []
    assert cluster.api.get(f"/subnets/{cluster.subnet}/addresses").json() == {}
    assert cluster.agent.guests == {}


def test_a_guest_that_was_never_placed_is_deleted_without_an_agent(cluster):
    big = cluster.api.made("/flavors", {"image": cluster.image, "memory": 99_999, "disk": 1, "cpu": 1})["id"]
    answer = cluster.create_guest(flavor=big)
    assert cluster.api.finished(answer)["status"] == "error"
    job = cluster.api.finished(cluster.api.delete(f"/guests/{answer.json()['id']}"))
    assert job["status"] == "done"
    assert job["steps"][-1]["message"] == "the guest was never placed"
    assert cluster.agent.requests == []
    assert cluster.keys_with(answer.json()["id"]) == []


def test_a_guest_that_the_agent_does_not_know_is_deleted(cluster):
    guest = cluster.running_guest()
    cluster.agent._state.guests.clear()
    assert cluster.api.finished(cluster.api.delete(f"/guests/{guest['id']}"))["status"] == "done"
    assert cluster.keys_with(guest["id"]) == []


def test_a_second_delete_is_done_too(cluster):
    guest = cluster.running_guest()
    cluster.agent.hold("delete")
    first = cluster.api.delete(f"/guests/{guest['id']}")
    second = cluster.api.delete(f"/guests/{guest['id']}")
    assert second.status_code == 202
    cluster.agent.release()
    assert cluster.api.finished(first)["status"] == "done"
    assert cluster.api.finished(second)["status"] == "done"
    assert cluster.api.delete(f"/guests/{guest['id']}").status_code == 404


def test_a_delete_that_the_agent_fails_releases_nothing(cluster):
    guest = cluster.running_guest()
    cluster.agent.fail_next("delete", "the disk is busy")
    job = cluster.api.finished(cluster.api.delete(f"/guests/{guest['id']}"))
    assert job["status"] == "error"
    assert job["error"].startswith("the disk is busy; the guest may still run on hypervisor")
    assert cluster.api.get(f"/subnets/{cluster.subnet}/addresses").json() == {"10.9.0.10": guest["id"]}
    assert cluster.api.finished(cluster.api.delete(f"/guests/{guest['id']}"))["status"] == "done"


def test_patch_changes_only_the_fields_in_the_body(cluster):
    guest = cluster.running_guest(metadata={"a": "1"})
    path = f"/guests/{guest['id']}"
    assert cluster.api.patch(path, json={"metadata": {"b": "2"}}).json() == {**guest, "metadata": {"b": "2"}}
    assert cluster.api.patch(path, json={"ip": guest["ip"]}).status_code == 200
    for field, value in (("ip", "10.9.0.11"), ("hypervisor", UNKNOWN), ("bridge", "br7"), ("subnet", "")):
        answer = cluster.api.patch(path, json={field: value})
        assert answer.status_code == 400, field
        assert answer.json()["field"] == field
    assert cluster.api.patch(path, json={"flavor": UNKNOWN}).status_code == 404
    other = cluster.api.made("/networks", {})["id"]
    assert cluster.api.patch(path, json={"network": other}).status_code == 409
    assert cluster.api.get(path).json() == {**guest, "metadata": {"b": "2"}}


def test_the_status_is_what_guestwatch_wrote(cluster):
    guest = cluster.running_guest()
    assert guest["status"]["state"] == "unknown"
    seen = GuestStatus(state="running", since="2026-01-01T00:00:00Z", hypervisor=cluster.hypervisor)
    cluster.store.commit((), (Put(keys.guest_status(guest["id"]), seen.to_json()),))
    expected = {
        "state": "running",
        "reason": "",
        "since": "2026-01-01T00:00:00Z",
        "hypervisor": cluster.hypervisor,
    }
    assert cluster.api.get(f"/guests/{guest['id']}").json()["status"] == expected
    listed = {entry["id"]: entry for entry in cluster.api.get("/guests").json()}
    assert listed[guest["id"]]["status"] == expected


def test_forty_creates_at_once_all_end_and_none_takes_what_another_has(cluster):
    total = Resources(memory=512 * 30, disk=100_000, cpu=100)
    cluster.store.commit(
        (), (Put(keys.hypervisor_resources(cluster.hypervisor), ResourcesRecord(total=total).to_json()),)
    )
    answers = [cluster.create_guest() for _ in range(40)]
    ends = [cluster.api.finished(answer)["status"] for answer in answers]
    assert ends.count("done") == 30
    assert ends.count("error") == 10
    assert len(cluster.api.get(f"/subnets/{cluster.subnet}/addresses").json()) == 30
    assert cluster.violations() == ()


def test_running_is_never_shown_of_a_guest_whose_hypervisor_is_not_alive(cluster):
    guest = cluster.running_guest()
    path = f"/guests/{guest['id']}"
    seen = GuestStatus(state="running", since="2026-01-01T00:00:00Z", hypervisor=cluster.hypervisor)
    cluster.store.commit((), (Put(keys.guest_status(guest["id"]), seen.to_json()),))
    assert cluster.api.get(path).json()["status"]["state"] == "running"

    lost = LostRecord(since="2026-02-01T00:00:00Z").to_json()
    heartbeat, lost_key = keys.hypervisor_heartbeat(cluster.hypervisor), keys.hypervisor_lost(cluster.hypervisor)
    cluster.store.commit((), (Delete(heartbeat), Put(lost_key, lost)))
    unknown = {
        "state": "unknown",
        "reason": "hypervisor_lost",
        "since": "2026-02-01T00:00:00Z",
        "hypervisor": cluster.hypervisor,
    }
    assert cluster.api.get(path).json()["status"] == unknown
    assert {entry["id"]: entry for entry in cluster.api.get("/guests").json()}[guest["id"]]["status"] == unknown
    shown = cluster.api.get(f"/hypervisors/{cluster.hypervisor}").json()
    assert (shown["alive"], shown["lost_since"]) == (False, "2026-02-01T00:00:00Z")

    cluster.store.commit((), (Put(heartbeat, b"{}"), Delete(lost_key)))
    assert cluster.api.get(path).json()["status"]["state"] == "running"
    assert "lost_since" not in cluster.api.get(f"/hypervisors/{cluster.hypervisor}").json()


def test_a_record_that_can_not_be_read_is_left_out_of_the_list_and_named_when_it_is_asked_for(cluster):
    guest = cluster.running_guest()
    id = "00000000-0000-4000-8000-0000000000aa"
    cluster.store.commit((), (Put(keys.guest(id), b'{"id": 17}'),))
    try:
        assert guest in cluster.api.get("/guests").json()
        answer = cluster.api.get(f"/guests/{id}")
        assert answer.status_code == 500
        assert id in answer.json()["message"]
    finally:
        cluster.store.commit((), (Delete(keys.guest(id)),))
