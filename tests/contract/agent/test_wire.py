"""The agent's HTTP interface, WIRE.md section 6, read from top to bottom: what any client may rely on.

Every test runs twice: on libvirt's test driver, and on QEMU under a libvirtd of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lochness.identity import new_id
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import JSON, AgentProcess, leased_agent
from tests.contract.agent.boot_sector import boot_sector

pytestmark = pytest.mark.timeout(120)

BRIDGE = "wire0"
SAID = "started from the disk"
UNKNOWN = "/guests/94ea0ba1-5ec2-460e-9c2e-8269593cdad3"


@pytest.fixture(scope="module", params=["test", "qemu"])
def agent(
    request: pytest.FixtureRequest, etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProcess]:
    """An agent on this hypervisor."""
    with ExitStack() as stack:
        settings: dict[str, Any] = {"shutdown_timeout_s": 1}
        if request.param == "qemu":
            machine: Machine = request.getfixturevalue("machine")
            libvirtd: Libvirtd = request.getfixturevalue("libvirtd")
            machine.bridge(BRIDGE, "10.91.6.1/24")
            stack.callback(machine.run, ["ip", "link", "delete", BRIDGE])
            settings["libvirt"] = libvirtd.uri_outside
        yield stack.enter_context(leased_agent(tmp_path_factory.mktemp("wire"), etcd_server.url, **settings))


@pytest.fixture(scope="module")
def image(agent: AgentProcess) -> str:
    """An image of 1 MB that is here. It boots, says a line on the serial console, and listens to no power button."""
    return agent.with_image(beginning=boot_sector(SAID))


@pytest.fixture
def request_body(agent: AgentProcess, image: str) -> JSON:
    """A guest as the controller sends it, bound here but not created."""
    guest = {
        "id": new_id(), "type": "kvm", "image": image,
        "nics": [{
            "name": "eth0", "network": BRIDGE, "model": "virtio", "mac": "02:e4:13:09:b7:b4",
            "address": "10.91.6.170", "netmask": "ffffff00", "gateway": "10.91.6.1", "vlans": [1],
        }],
        "disks": [{"size": 4, "image": image, "source": image}, {"size": 2}],
        "memory": 32, "cpu": 1, "metadata": {"foo": "bar"},
    }  # fmt: skip
    agent.bind(str(guest["id"]))
    return guest


@pytest.fixture
def guest(agent: AgentProcess, request_body: JSON) -> Iterator[str]:
    """A running guest; the path of it."""
    agent.done(agent.post("/guests", request_body))
    path = f"/guests/{request_body['id']}"
    yield path
    agent.done(agent.post(f"{path}/delete"))


# ------------------------------------------------------------------------------------------------------------- guests


def test_post_guests_creates_one(agent: AgentProcess, request_body: JSON) -> None:
    """202, the job in X-Guest-Job-ID, the guest as body. The job ends when the guest runs."""
    answer = agent.post("/guests", request_body)
    assert answer.status_code == 202
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["id"] == request_body["id"]
    job = agent.done(answer)
    assert job["ID"] == answer.headers["X-Guest-Job-ID"]

    # The answer is what was sent, with bus, device and volume on each disk, and the state.
    shown = agent.get(f"/guests/{request_body['id']}").json()
    directory = agent.guest_dir / request_body["id"]
    first, second = request_body["disks"]
    assert shown == {
        **request_body,
        "disks": [
            {**first, "bus": "virtio", "device": "vda", "volume": str(directory / "vda.qcow2")},
            {**second, "bus": "virtio", "device": "vdb", "volume": str(directory / "vdb.qcow2")},
        ],
        "state": "running",
    }
    assert agent.get("/guests").json() == [shown]
    agent.done(agent.post(f"/guests/{request_body['id']}/delete"))


def test_get_guests_is_an_empty_array_without_guests(agent: AgentProcess) -> None:
    answer = agent.get("/guests")
    assert (answer.status_code, answer.text) == (200, "[]\n")


def test_a_netmask_is_hexadecimal_or_dotted(agent: AgentProcess, request_body: JSON) -> None:
    request_body["nics"][0]["netmask"] = "255.255.255.0"
    agent.done(agent.post("/guests", request_body))
    agent.done(agent.post(f"/guests/{request_body['id']}/delete"))


def test_an_unknown_guest_is_404(agent: AgentProcess) -> None:
    """Everywhere, but for delete, which always works."""
    for path in (
        "",
        "/metadata",
        "/metrics/cpu",
        "/metrics/disk",
        "/metrics/nic",
        "/console",
        "/snapshots",
        "/snapshots/s",
    ):
        answer = agent.get(UNKNOWN + path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "not_found"), path
    for action in ("shutdown", "reboot", "restart", "poweroff", "start", "suspend", "resume", "snapshots"):
        assert agent.post(f"{UNKNOWN}/{action}").status_code == 404, action
    assert agent.patch(f"{UNKNOWN}/metadata", {"a": "b"}).status_code == 404
    assert "was not here" in agent.done(agent.post(f"{UNKNOWN}/delete"))["Message"]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("id", {"id": "not-a-uuid"}),
        ("memory", {"memory": 0}),
        ("disks[0].size", {"disks": [{"size": 0}]}),
        ("nics[0].netmask", {"nics": [{"network": "br0", "address": "10.0.0.1", "netmask": "ff00ff00"}]}),
        ("nics[0].vlans", {"nics": [{"network": "br0", "vlans": [4096]}]}),
        ("metadata.firmware", {"metadata": {"firmware": "coreboot"}}),
        ("metadata.nameservers", {"metadata": {"nameservers": "dns.example"}}),
    ],
)
def test_what_is_wrong_is_400_and_names_the_field(
    agent: AgentProcess, request_body: JSON, field: str, change: JSON
) -> None:
    answer = agent.post("/guests", {**request_body, **change})
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert answer.json()["reason"] == "invalid"


# ------------------------------------------------------------------------------------------------------------ actions


def test_every_action_is_a_job(agent: AgentProcess, guest: str) -> None:
    """202, X-Guest-Job-ID, the guest as body; the guest's state follows."""
    for action, state in [
        ("suspend", "paused"),
        ("resume", "running"),
        ("reboot", "running"),
        ("restart", "running"),
        ("poweroff", "stopped"),
        ("start", "running"),
        ("shutdown", "stopped"),  # within shutdown_timeout_s, else by force: the job says which
        ("start", "running"),
        ("delete", ""),
    ]:
        answer = agent.post(f"{guest}/{action}")
        assert answer.json()["id"] == guest.rpartition("/")[2]
        job = agent.done(answer)
        assert (job["Action"], job["Status"]) == (action, "Complete")
        assert agent.get(guest).json().get("state", "") == state, action
    assert agent.get(guest).status_code == 404


def test_a_shutdown_that_is_not_obeyed_ends_with_the_power_cut_and_says_so(agent: AgentProcess, guest: str) -> None:
    message = agent.done(agent.post(f"{guest}/shutdown"))["Message"]
    obeyed = "shut down by itself" in message  # the test driver's guests do, one that boots nothing does not
    assert obeyed or "did not shut down within 1 s, its power was cut" in message
    assert agent.get(guest).json()["state"] == "stopped"


def test_a_delete_works_from_any_state_and_leaves_nothing(agent: AgentProcess, request_body: JSON) -> None:
    path, directory = f"/guests/{request_body['id']}", agent.guest_dir / request_body["id"]
    for before in ([], ["suspend"], ["poweroff"], ["snapshots"]):
        agent.done(agent.post("/guests", request_body))
        for action in before:
            agent.done(agent.post(f"{path}/{action}"))
        agent.done(agent.post(f"{path}/delete"))
        assert agent.get(path).status_code == 404
        assert not directory.exists()


# --------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_is_read_any_number_of_times_and_waited_for(agent: AgentProcess, guest: str) -> None:
    id = agent.post(f"{guest}/restart").headers["X-Guest-Job-ID"]
    job = agent.get(f"/jobs/{id}", wait_s="30").json()
    assert list(job)[:8] == ["ID", "GuestID", "Action", "QueuedAt", "StartedAt", "UpdatedAt", "Status", "Message"]
    assert job["GuestID"] == guest.rpartition("/")[2]
    assert job["Status"] == "Complete"
    assert agent.get(f"/jobs/{id}").json() == agent.get(f"{guest}/jobs/{id}").json() == job


def test_jobs_are_listed_newest_first(agent: AgentProcess, guest: str) -> None:
    agent.done(agent.post(f"{guest}/restart"))
    actions = [job["Action"] for job in agent.get(f"{guest}/jobs").json()]
    assert actions == ["restart", "create"]
    assert [job["Action"] for job in agent.get(f"{guest}/jobs", limit="1").json()] == ["restart"]
    assert agent.get("/jobs", limit="2").json() == agent.get(f"{guest}/jobs").json()
    assert agent.get(f"/jobs/{new_id()}").status_code == 404


# ------------------------------------------------------------------------------------------------------------- images


def test_an_image_is_fetched_shown_and_deleted(agent: AgentProcess) -> None:
    id = new_id()
    source = agent.source("one.raw", bytes(1 << 20))
    answer = agent.post("/images", {"id": id, "type": "kvm", "source": source})
    assert answer.status_code == 202
    job = agent.done(answer)
    assert (job["GuestID"], job["Action"]) == ("agent", "fetchImage")
    shown = agent.get(f"/images/{id}").json()
    assert {name: shown[name] for name in ("id", "type", "size", "status")} == {
        "id": id, "type": "kvm", "size": 1 << 20, "status": "complete",
    }  # fmt: skip
    assert shown in agent.get("/images").json()
    assert agent.delete(f"/images/{id}").status_code == 200
    assert agent.get(f"/images/{id}").status_code == 404


def test_an_image_below_a_disk_stays(agent: AgentProcess, guest: str, image: str) -> None:
    answer = agent.delete(f"/images/{image}")
    assert (answer.status_code, answer.json()["reason"]) == (409, "image_in_use")


# ----------------------------------------------------------------------------------------------------------- metadata


def test_metadata_of_the_host_is_patched(agent: AgentProcess) -> None:
    """null or "" unsets, the rest is merged, the answer is the whole."""
    assert agent.get("/metadata").json() == {}
    assert agent.patch("/metadata", {"rack": "a1", "row": "7"}).json() == {"rack": "a1", "row": "7"}
    assert agent.patch("/metadata", {"rack": None, "power": "2"}).json() == {"row": "7", "power": "2"}
    assert agent.get("/metadata").json() == {"row": "7", "power": "2"}
    assert agent.patch("/metadata", {"row": "", "power": None}).json() == {}


def test_metadata_of_a_guest_is_patched_and_its_seed_follows(agent: AgentProcess, guest: str) -> None:
    assert agent.get(f"{guest}/metadata").json() == {"foo": "bar"}
    seed = agent.guest_dir / guest.rpartition("/")[2] / "seed.iso"
    assert b"patched-name" not in seed.read_bytes()
    changes = {"foo": None, "name": "patched-name"}
    assert agent.patch(f"{guest}/metadata", changes).json() == {"name": "patched-name"}
    assert agent.get(guest).json()["metadata"] == {"name": "patched-name"}
    assert b"patched-name" in seed.read_bytes()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":1}', b'{"a":{}}', b'{"":"a"}', b'{"a":"b"'])
def test_metadata_that_is_no_object_of_strings_is_400(agent: AgentProcess, body: bytes) -> None:
    answer = agent.patch("/metadata", body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid")
    assert agent.get("/metadata").json() == {}


# ------------------------------------------------------------------------------------------------------------ metrics

DISK_FIELDS = [
    *("disk", "read_ops", "read_bytes", "read_time", "write_ops", "write_bytes", "write_time"),
    *("flush_ops", "flush_time"),
]
NIC_FIELDS = [
    *("name", "rx_bytes", "rx_packets", "rx_errors", "rx_drops", "tx_bytes", "tx_packets", "tx_errors", "tx_drops"),
]


def test_metrics_have_these_shapes(agent: AgentProcess, guest: str) -> None:
    (cpu,) = agent.get(f"{guest}/metrics/cpu").json()
    assert list(cpu) == ["cpu_time", "vcpu_time"]
    assert cpu["cpu_time"] > 0
    disks = agent.get(f"{guest}/metrics/disk").json()
    assert list(disks) == ["vda", "vdb"]  # not the seed
    for name, disk in disks.items():
        assert (list(disk), disk["disk"]) == (DISK_FIELDS, name)
    nics = agent.get(f"{guest}/metrics/nic").json()
    assert list(nics) == ["net0"]
    assert (list(nics["net0"]), nics["net0"]["name"]) == (NIC_FIELDS, "net0")


def test_metrics_of_a_guest_that_is_off_are_zero(agent: AgentProcess, guest: str) -> None:
    agent.done(agent.post(f"{guest}/poweroff"))
    assert agent.get(f"{guest}/metrics/cpu").json() == [{"cpu_time": 0, "vcpu_time": 0}]
    assert {disk["read_ops"] for disk in agent.get(f"{guest}/metrics/disk").json().values()} == {0}
    assert {nic["rx_bytes"] for nic in agent.get(f"{guest}/metrics/nic").json().values()} == {0}


# ------------------------------------------------------------------------------------------------------------ console


def test_the_console_is_text_and_one_can_go_on_where_one_was(agent: AgentProcess, guest: str) -> None:
    """Not in the original. On QEMU what the guest said since it was started; the test driver's guests say nothing."""
    says = agent.settings["libvirt"] != "test:///default"
    expected = SAID if says else ""
    wait_until(lambda: expected in agent.get(f"{guest}/console").text, limit_s=60, what="line on the console")
    answer = agent.get(f"{guest}/console")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    end = int(answer.headers["X-Console-End"])
    assert end == len(answer.content)
    assert (end > 0) is says

    nothing_new = agent.get(f"{guest}/console", since=str(end))
    assert (nothing_new.text, nothing_new.headers["X-Console-End"]) == ("", str(end))
    if says:
        assert agent.get(f"{guest}/console", limit_bytes="9").text == "he disk\r\n"
        assert agent.get(f"{guest}/console", since="2", limit_bytes="9").content == answer.content[2:11]

    # It stays when the guest is off, and begins anew with the next start.
    agent.done(agent.post(f"{guest}/poweroff"))
    assert expected in agent.get(f"{guest}/console").text
    agent.done(agent.post(f"{guest}/start"))
    wait_until(lambda: expected in agent.get(f"{guest}/console").text, limit_s=60, what="line on the console")
    assert agent.get(f"{guest}/console").text.count(SAID) == (1 if says else 0)


@pytest.mark.parametrize(
    ("field", "value"), [("since", "-1"), ("since", "x"), ("limit_bytes", "0"), ("limit_bytes", "9" * 30)]
)
def test_a_place_that_is_none_is_400(agent: AgentProcess, field: str, value: str) -> None:
    answer = agent.get(f"{UNKNOWN}/console", **{field: value})
    assert (answer.status_code, answer.json()["field"]) == (400, field)


# ---------------------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_of_a_guest_is_of_all_its_disks(agent: AgentProcess, guest: str) -> None:
    """Of a running guest as of one that is off; the disks alone, as a power cut would leave them."""
    assert agent.get(f"{guest}/snapshots").json() == []
    agent.done(agent.post(f"{guest}/snapshots", {"name": "warm"}))
    agent.done(agent.post(f"{guest}/poweroff"))
    agent.done(agent.post(f"{guest}/snapshots", {"name": "cold"}))
    warm, cold = agent.get(f"{guest}/snapshots").json()
    assert (warm["name"], warm["disks"]) == ("warm", ["vda", "vdb"])
    assert agent.get(f"{guest}/snapshots/cold").json() == cold
    assert list(cold) == ["name", "disks", "created_at"]

    agent.done(agent.post(f"{guest}/start"))
    agent.done(agent.delete(f"{guest}/snapshots/cold"))
    assert agent.get(f"{guest}/snapshots").json() == [warm]
    assert agent.get(f"{guest}/snapshots/cold").status_code == 404


def test_a_snapshot_of_one_disk(agent: AgentProcess, guest: str) -> None:
    agent.done(agent.post(f"{guest}/disks/vdb/snapshots", {"name": "s"}))
    assert [each["disks"] for each in agent.get(f"{guest}/disks/vdb/snapshots").json()] == [["vdb"]]
    assert agent.get(f"{guest}/disks/vda/snapshots").json() == []
    assert agent.get(f"{guest}/snapshots").json() == []  # not every disk has it
    assert agent.get(f"{guest}/disks/vdb/snapshots/s").status_code == 200
    assert agent.get(f"{guest}/disks/vdx/snapshots").status_code == 404
    assert agent.refused(agent.post(f"{guest}/snapshots", {"name": "s"}))["Reason"] == "snapshot_exists"
    agent.done(agent.delete(f"{guest}/disks/vdb/snapshots/s"))
    assert agent.get(f"{guest}/disks/vdb/snapshots").json() == []


def test_a_snapshot_without_a_name_is_called_by_the_time(agent: AgentProcess, guest: str) -> None:
    agent.done(agent.post(f"{guest}/snapshots"))
    (snapshot,) = agent.get(f"{guest}/snapshots").json()
    assert snapshot["name"][:8] == snapshot["created_at"][:10].replace("-", "")


@pytest.mark.parametrize("name", ["../x", "a b", "-d", ".", "x" * 65, "a,b=c", "snöw", "a\n"])
def test_a_name_that_is_none_is_400(agent: AgentProcess, name: str) -> None:
    answer = agent.post(f"{UNKNOWN}/snapshots", {"name": name})
    assert (answer.status_code, answer.json()["field"]) == (400, "name")


def test_a_rollback_brings_the_disks_back(agent: AgentProcess, guest: str) -> None:
    """A guest that runs is powered off, rolled back and started; one that is off stays off."""
    disk = agent.guest_dir / guest.rpartition("/")[2] / "vdb.qcow2"
    agent.done(agent.post(f"{guest}/poweroff"))
    write(disk, b"before")
    agent.done(agent.post(f"{guest}/snapshots", {"name": "s"}))
    write(disk, b"after!")
    agent.done(agent.post(f"{guest}/snapshots/s/rollback"))
    assert read(disk, 6) == b"before"
    assert agent.get(guest).json()["state"] == "stopped"

    write(disk, b"after!")
    agent.done(agent.post(f"{guest}/start"))
    assert "started again" in agent.done(agent.post(f"{guest}/disks/vdb/snapshots/s/rollback"))["Message"]
    assert agent.get(guest).json()["state"] == "running"
    agent.done(agent.post(f"{guest}/poweroff"))
    assert read(disk, 6) == b"before"
    assert agent.refused(agent.post(f"{guest}/snapshots/other/rollback"))["Reason"] == "not_found"


def test_a_download_is_a_disk_that_needs_nothing_else(agent: AgentProcess, guest: str, tmp_path: Path) -> None:
    disk = agent.guest_dir / guest.rpartition("/")[2] / "vdb.qcow2"
    agent.done(agent.post(f"{guest}/poweroff"))
    write(disk, b"in the snapshot")
    agent.done(agent.post(f"{guest}/snapshots", {"name": "s"}))
    write(disk, b"afterwards")
    agent.done(agent.post(f"{guest}/start"))
    answer = agent.get(f"{guest}/disks/vdb/snapshots/s/download")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    downloaded = tmp_path / "disk.qcow2"
    downloaded.write_bytes(answer.content)
    assert read(downloaded, 15) == b"in the snapshot"
    told = subprocess.run(["qemu-img", "info", "--output=json", downloaded], capture_output=True, timeout=30)
    info = json.loads(told.stdout)
    assert (info["format"], info["virtual-size"]) == ("qcow2", 2 << 20)
    assert "backing-filename" not in info

    refused = agent.get(f"{guest}/snapshots/s/download")  # of two disks
    assert (refused.status_code, refused.json()["reason"]) == (409, "which_disk")
    assert not list(disk.parent.glob("*.partial"))


def write(disk: Path, content: bytes) -> None:
    """Into a disk that nobody holds."""
    commands = f"write -q -s /dev/stdin 0 {len(content)}"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", commands, disk], input=content, check=True, timeout=30)


def read(disk: Path, count: int) -> bytes:
    argv = ["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", "bs=512", "count=1", f"if={disk}", f"of={disk}.head"]
    subprocess.run(argv, check=True, timeout=30)
    head = Path(f"{disk}.head")
    content = head.read_bytes()[:count]
    head.unlink()
    return content
