"""lochness.agent_client against an agent over HTTP, and against things that are none."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from lochness import keys
from lochness.agent_client import MistifyAgent
from lochness.agent_requests import agent_url, guest_request, netmask_hex
from lochness.context import Context
from lochness.errors import (
    AgentJobError,
    AmbiguousWriteError,
    ConflictError,
    DeadlineError,
    HTTPCodeError,
    NotFoundError,
    UnavailableError,
    ValidationError,
)
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.subnet import SubnetRecord
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Key, Put
from lochness_lab.fake_agent import FakeAgent

GUEST, HYPERVISOR, FLAVOR, SUBNET, IMAGE = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(5))


@pytest.fixture(params=[True, False], ids=["waits", "answers-at-once"])
def agent(request):
    with FakeAgent(waits=request.param) as agent:
        yield agent


@pytest.fixture
def store():
    with MemoryStore() as store:
        records = {
            keys.guest(GUEST): GuestRecord(
                id=GUEST, flavor=FLAVOR, hypervisor=HYPERVISOR, subnet=SUBNET, mac="02:00:00:00:00:01", ip="10.0.0.2",
                bridge="br0",
            ),
            keys.hypervisor(HYPERVISOR): HypervisorRecord(id=HYPERVISOR, ip="127.0.0.1"),
            keys.flavor(FLAVOR): FlavorRecord(id=FLAVOR, image=IMAGE, memory=128, disk=16, cpu=1),
            keys.subnet(SUBNET): SubnetRecord(id=SUBNET, cidr="10.0.0.0/20", start="10.0.0.2", end="10.0.0.9"),
            keys.image(IMAGE): ImageRecord(id=IMAGE, source="file:///images/a.qcow2"),
        }  # fmt: skip
        store.commit((), tuple(Put(key, record.to_json()) for key, record in records.items()))
        yield store


@pytest.fixture
def client(store, agent):
    store.commit((), (Put(keys.hypervisor_config(HYPERVISOR, "agentUrl"), agent.url.encode()),))
    with MistifyAgent(Context(store), timeout_s=2) as client:
        yield client


def test_a_guest_is_created_acted_on_and_deleted(client, agent):
    client.wait_job(GUEST, client.fetch_image(GUEST), limit_s=5)
    job = client.create_guest(GUEST, request_id="r1")
    client.wait_job(GUEST, job, limit_s=5)
    assert client.check_job_status(GUEST, job) is True
    assert client.get_guest(GUEST)["state"] == "running"
    client.wait_job(GUEST, client.guest_action(GUEST, "suspend"), limit_s=5)
    assert client.get_guest(GUEST)["state"] == "paused"
    client.wait_job(GUEST, client.delete_guest(GUEST), limit_s=5)
    assert agent.guests == {}
    assert [asked.request_id for asked in agent.requests] == ["", "r1", "", ""]


def test_what_the_agent_does_not_know_is_an_http_code_error(client):
    with pytest.raises(HTTPCodeError, match="unexpected HTTP Response Code: Expected 200, Received 404") as caught:
        client.get_guest(GUEST)
    assert (caught.value.expected, caught.value.code) == (200, 404)
    with pytest.raises(HTTPCodeError) as caught:
        client.guest_action(GUEST, "start")
    assert (caught.value.expected, caught.value.code) == (202, 404)
    with pytest.raises(HTTPCodeError):
        client.check_job_status(GUEST, "no-such-job")


def test_a_failed_job_raises_the_agents_message(client, agent):
    agent.fail_next("create", "the image is broken")
    job = client.create_guest(GUEST)
    with pytest.raises(AgentJobError, match=r"^the image is broken$"):
        client.check_job_status(GUEST, job)


def test_a_job_that_does_not_end_is_a_deadline_error(client, agent):
    agent.hold("create")
    job = client.create_guest(GUEST)
    assert client.check_job_status(GUEST, job) is False
    started_s = time.monotonic()
    with pytest.raises(DeadlineError, match=r"has not ended within 0\.6 s"):
        client.wait_job(GUEST, job, limit_s=0.6)
    assert time.monotonic() - started_s < 2
    agent.release()


def test_a_wait_ends_soon_after_the_job(client, agent):
    agent.hold("create")
    job = client.create_guest(GUEST)
    releaser = threading.Timer(0.2, agent.release)
    releaser.start()
    started_s = time.monotonic()
    client.wait_job(GUEST, job, limit_s=10)
    assert time.monotonic() - started_s < 1.5
    releaser.join()


def test_a_job_is_found_again_by_its_request(client, agent):
    agent.hold("reboot")
    client.wait_job(GUEST, client.create_guest(GUEST, request_id="job-1"), limit_s=5)
    job = client.guest_action(GUEST, "reboot", request_id="job-2")
    assert client.find_job(GUEST, "reboot", "job-2") == job
    assert client.find_job(GUEST, "reboot", "job-3") == ""
    assert client.find_job(GUEST, "start", "job-2") == ""
    agent.tells_requests = False
    agent.forget_jobs()
    client.guest_action(GUEST, "reboot", request_id="job-4")
    assert client.find_job(GUEST, "reboot", "job-4") == ""


def test_an_agent_that_is_away_is_unavailable(client, agent):
    agent.stop()
    with pytest.raises(UnavailableError, match="was not reached"):
        client.create_guest(GUEST)


def test_a_request_without_an_answer_may_have_happened(store):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store.commit((), (Put(keys.hypervisor_config(HYPERVISOR, "agentUrl"), url.encode()),))
        with MistifyAgent(Context(store), timeout_s=0.3) as client:
            with pytest.raises(AmbiguousWriteError):
                client.create_guest(GUEST)
            with pytest.raises(UnavailableError):
                client.get_guest(GUEST)


def test_what_is_no_agent_is_said_to_be_none(store, controller):
    page = f"{controller.url}/schema?"
    store.commit((), (Put(keys.hypervisor_config(HYPERVISOR, "agentUrl"), page.encode()),))
    with MistifyAgent(Context(store)) as client, pytest.raises(UnavailableError, match="is no agent"):
        client.get_guest(GUEST)


def test_what_a_request_is_built_of_must_exist(store):
    with MistifyAgent(Context(store)) as client:
        with pytest.raises(NotFoundError) as caught:
            client.get_guest(IMAGE)
        assert caught.value.kind == "guest"
        store.commit((), (Put(keys.guest(GUEST), GuestRecord(id=GUEST, flavor=FLAVOR).to_json()),))
        with pytest.raises(ConflictError) as conflict:
            client.get_guest(GUEST)
        assert conflict.value.reason == "not_placed"


def test_where_an_agent_listens():
    hypervisor = HypervisorRecord(id=HYPERVISOR, ip="10.0.0.7")
    assert agent_url(hypervisor, "") == "http://10.0.0.7:8080"
    assert agent_url(hypervisor, "", 9090) == "http://10.0.0.7:9090"
    assert agent_url(HypervisorRecord(id=HYPERVISOR, ip="fd00::7"), "") == "http://[fd00::7]:8080"
    assert agent_url(hypervisor, "https://agent.example:1/") == "https://agent.example:1"
    with pytest.raises(ValidationError, match="neither an ip nor the config key agentUrl"):
        agent_url(HypervisorRecord(id=HYPERVISOR), "")


def test_netmasks_are_hexadecimal():
    assert netmask_hex(SubnetRecord(cidr="10.0.0.0/20")) == "fffff000"
    assert netmask_hex(SubnetRecord(cidr="fd00::/64")) == "f" * 16 + "0" * 16


def test_a_flavor_without_a_disk_gives_a_guest_without_one():
    request = guest_request(GuestRecord(id=GUEST), FlavorRecord(id=FLAVOR, memory=1, cpu=1), SubnetRecord(cidr="::/64"))
    assert request["disks"] == []


def test_the_vlans_of_its_group_and_the_firmware_of_its_flavor_go_along():
    flavor, subnet = FlavorRecord(id=FLAVOR, memory=1, cpu=1, metadata={"firmware": "uefi"}), SubnetRecord(cidr="::/64")
    request = guest_request(GuestRecord(id=GUEST, metadata={"name": "web"}), flavor, subnet, [7, 9])
    assert request["nics"][0]["vlans"] == [7, 9]
    assert request["metadata"] == {"firmware": "uefi", "name": "web"}
    own = guest_request(GuestRecord(id=GUEST, metadata={"firmware": "bios"}), flavor, subnet)
    assert (own["nics"][0]["vlans"], own["metadata"]) == ([1], {"firmware": "bios"})


def test_the_tags_are_read_from_the_guests_group(client, store, agent):
    group = "00000000-0000-4000-8000-000000000009"
    guest = GuestRecord.from_json(store.read(Key(keys.guest(GUEST))).one().value)
    guest.vlangroup = group
    links = [Put(keys.vlangroup_vlan(group, tag), b"{}") for tag in ("10", "9")]
    store.commit((), (Put(keys.guest(GUEST), guest.to_json()), *links))
    client.wait_job(GUEST, client.create_guest(GUEST), limit_s=5)
    (asked,) = [each for each in agent.requests if each.path == "/guests"]
    assert asked.body["nics"][0]["vlans"] == [9, 10]
