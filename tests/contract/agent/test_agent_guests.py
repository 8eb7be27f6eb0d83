"""Guests over the agent's HTTP API: the real process, the real store, libvirt's test driver."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pycdlib
import pytest

from lochness.identity import new_id
from tests.contract.agent.agent_process import AgentProcess

FIELDS = ["id", "type", "image", "nics", "disks", "memory", "cpu", "metadata", "state"]


def seed_file(path: Path, name: str) -> str:
    iso, content = pycdlib.PyCdlib(), io.BytesIO()
    iso.open(str(path))
    iso.get_file_from_iso_fp(content, rr_path=f"/{name}")
    iso.close()
    return content.getvalue().decode()


def test_a_guest_is_created_and_shown(agent: AgentProcess) -> None:
    image = agent.with_image()
    guest = agent.guest(image)
    agent.bind(guest["id"])
    answer = agent.post("/guests", guest)
    assert answer.status_code == 202
    assert list(answer.json()) == FIELDS
    assert answer.text.endswith("}\n")
    job = agent.done(answer)
    assert list(job)[:8] == ["ID", "GuestID", "Action", "QueuedAt", "StartedAt", "UpdatedAt", "Status", "Message"]
    assert (job["GuestID"], job["Action"]) == (guest["id"], "create")
    shown = agent.get(f"/guests/{guest['id']}").json()
    assert list(shown) == FIELDS
    volume = str(agent.guest_dir / guest["id"] / "vda.qcow2")
    disk = {"size": 4, "image": image, "source": image, "bus": "virtio", "device": "vda", "volume": volume}
    assert shown == {**guest, "disks": [disk], "state": "running"}
    assert shown in agent.get("/guests").json()


def test_its_disk_is_an_overlay_and_its_seed_is_readable(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    directory = agent.guest_dir / guest["id"]
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", directory / "vda.qcow2"], capture_output=True, check=True, timeout=30
    )
    info = json.loads(told.stdout)
    assert info["format"] == "qcow2"
    assert info["virtual-size"] == 4 << 20
    assert info["full-backing-filename"] == str(agent.image_dir / guest["image"] / "disk.raw")
    assert info["backing-filename-format"] == "raw"
    meta = json.loads(seed_file(directory / "seed.iso", "meta-data"))
    assert meta == {"instance-id": guest["id"], "local-hostname": "web-1"}
    network = json.loads(seed_file(directory / "seed.iso", "network-config"))
    assert network["ethernets"]["eth0"]["addresses"] == ["10.10.10.170/24"]
    assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}


def test_creating_a_running_guest_again_changes_nothing(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    disk = agent.guest_dir / guest["id"] / "vda.qcow2"
    before = disk.stat()
    job = agent.done(agent.post("/guests", guest))
    assert "running already" in job["Message"]
    after = disk.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_creating_a_stopped_guest_again_keeps_its_disk_and_starts_it(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    disk = agent.guest_dir / guest["id"] / "vda.qcow2"
    inode = disk.stat().st_ino
    agent.done(agent.post(f"/guests/{guest['id']}/poweroff"))
    agent.done(agent.post("/guests", guest))
    assert disk.stat().st_ino == inode
    assert agent.get(f"/guests/{guest['id']}").json()["state"] == "running"


def test_a_stopped_guest_is_not_created_anew_on_another_image(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    agent.done(agent.post(f"/guests/{guest['id']}/poweroff"))
    other = agent.guest(agent.with_image(), id=guest["id"])
    job = agent.refused(agent.post("/guests", other))
    assert job["Reason"] == "guest_differs"
    assert (agent.guest_dir / guest["id"] / "vda.qcow2").exists()


def test_what_an_interrupted_create_left_is_completed(agent: AgentProcess) -> None:
    guest = agent.guest(agent.with_image())
    agent.bind(guest["id"])
    directory = agent.guest_dir / guest["id"]
    directory.mkdir()
    (directory / "vda.qcow2.partial").write_bytes(b"half")
    agent.done(agent.post("/guests", guest))
    assert {path.name for path in directory.iterdir()} == {"guest.json", "vda.qcow2", "seed.iso"}


def test_a_guest_that_is_not_bound_here_is_refused_and_leaves_nothing(agent: AgentProcess) -> None:
    guest = agent.guest(agent.with_image())
    job = agent.refused(agent.post("/guests", guest))
    assert job["Reason"] == "not_bound_here"
    assert guest["id"] in job["Message"]
    assert agent.hypervisor_id in job["Message"]
    assert not (agent.guest_dir / guest["id"]).exists()
    assert agent.get(f"/guests/{guest['id']}").status_code == 404


def test_a_stopped_guest_whose_binding_went_away_is_not_started(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    agent.done(agent.post(f"/guests/{guest['id']}/poweroff"))
    agent.unbind(guest["id"])
    assert agent.refused(agent.post(f"/guests/{guest['id']}/start"))["Reason"] == "not_bound_here"
    assert agent.get(f"/guests/{guest['id']}").json()["state"] == "stopped"


def test_without_the_lease_nothing_starts_and_everything_else_works(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    agent.lose_lease()
    try:
        other = agent.guest(guest["image"])
        agent.bind(other["id"])
        assert agent.refused(agent.post("/guests", other))["Reason"] == "lease_missing"
        agent.done(agent.post(f"/guests/{guest['id']}/poweroff"))
        assert agent.refused(agent.post(f"/guests/{guest['id']}/start"))["Reason"] == "lease_missing"
        agent.done(agent.post(f"/guests/{guest['id']}/delete"))
    finally:
        agent.hold_lease()


def test_a_disk_smaller_than_its_image_is_refused_with_both_sizes(agent: AgentProcess) -> None:
    image = agent.with_image(megabytes=3)
    guest = agent.guest(image, disks=[{"size": 2, "image": image}])
    agent.bind(guest["id"])
    job = agent.refused(agent.post("/guests", guest))
    assert "2 MB" in job["Message"]
    assert "3 MB" in job["Message"]
    assert not (agent.guest_dir / guest["id"]).exists()


def test_an_image_that_is_not_here_is_named(agent: AgentProcess) -> None:
    image = new_id()
    guest = agent.guest(image)
    agent.bind(guest["id"])
    job = agent.refused(agent.post("/guests", guest))
    assert job["Reason"] == "not_found"
    assert image in job["Message"]


def test_a_create_that_fails_half_way_removes_what_it_made(agent: AgentProcess) -> None:
    # libvirt refuses the definition, after the files were made.
    guest = agent.guest(agent.with_image())
    guest["nics"][0]["mac"] = "ff:ff:ff:ff:ff:ff"
    agent.bind(guest["id"])
    job = agent.refused(agent.post("/guests", guest))
    assert job["Reason"] == "driver_failed"
    assert not (agent.guest_dir / guest["id"]).exists()
    assert agent.get(f"/guests/{guest['id']}").status_code == 404


@pytest.mark.parametrize(
    ("actions", "state"),
    [
        (["suspend"], "paused"),
        (["suspend", "suspend"], "paused"),
        (["suspend", "resume"], "running"),
        (["poweroff"], "stopped"),
        (["poweroff", "poweroff"], "stopped"),
        (["poweroff", "start"], "running"),
        (["start"], "running"),
        (["shutdown"], "stopped"),
        (["shutdown", "shutdown", "start"], "running"),
    ],
)
def test_actions_reach_their_state(agent: AgentProcess, actions: list[str], state: str) -> None:
    guest = agent.running_guest()
    for action in actions:
        agent.done(agent.post(f"/guests/{guest['id']}/{action}"))
    assert agent.get(f"/guests/{guest['id']}").json()["state"] == state
    agent.done(agent.post(f"/guests/{guest['id']}/delete"))


def test_a_deleted_guest_leaves_nothing_and_can_be_deleted_again(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    agent.done(agent.post(f"/guests/{guest['id']}/delete"))
    assert not (agent.guest_dir / guest["id"]).exists()
    assert agent.get(f"/guests/{guest['id']}").status_code == 404
    again = agent.post(f"/guests/{guest['id']}/delete")
    assert again.json()["state"] == "missing"
    assert "was not here" in agent.done(again)["Message"]


def test_a_guest_whose_domain_is_gone_is_started_from_its_record(agent: AgentProcess) -> None:
    # A create that was cut short before the domain was defined, in the shape its files would have.
    guest = agent.guest(agent.with_image())
    agent.bind(guest["id"])
    directory = agent.guest_dir / guest["id"]
    directory.mkdir()
    (directory / "guest.json").write_text(json.dumps(guest))
    assert agent.get(f"/guests/{guest['id']}").json()["state"] == "missing"
    agent.done(agent.post("/guests", guest))
    assert agent.get(f"/guests/{guest['id']}").json()["state"] == "running"


def test_hostile_texts_stay_texts(agent: AgentProcess) -> None:
    name = 'a"\n</title><devices/>&\x1b[31m\x00'
    guest = agent.guest(agent.with_image(), metadata={"name": name, "x": "]]><!--"})
    agent.bind(guest["id"])
    agent.done(agent.post("/guests", guest))
    assert agent.get(f"/guests/{guest['id']}").json()["metadata"] == {"name": name, "x": "]]><!--"}
    meta = json.loads(seed_file(agent.guest_dir / guest["id"] / "seed.iso", "meta-data"))
    assert meta["local-hostname"] == "a-title-devices-31m"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("id", {"id": "../../etc"}),
        ("id", {"id": ""}),
        ("image", {"image": "../x"}),
        ("disks[0].source", {"disks": [{"size": 4, "source": "/etc/passwd"}]}),
        ("memory", {"memory": 0}),
        ("memory", {"memory": "64"}),
        ("cpu", {"cpu": -1}),
        ("type", {"type": "container"}),
        ("nics[0].network", {"nics": [{"network": "../br0", "mac": "02:e4:13:09:b7:b4"}]}),
        ("nics[0].name", {"nics": [{"name": "eth0\n", "network": "br0"}]}),
        ("nics[0].model", {"nics": [{"network": "br0", "model": "virtio'/><x"}]}),
        ("nics[0].mac", {"nics": [{"network": "br0", "mac": "nonsense"}]}),
        ("nics[0].netmask", {"nics": [{"network": "br0", "address": "10.0.0.1", "netmask": "ff00ff00"}]}),
        ("disks", {"disks": [{"size": 1}] * 25}),
    ],
)
def test_what_is_wrong_with_a_request_is_named(agent: AgentProcess, field: str, changes: dict[str, object]) -> None:
    guest = {**agent.guest(new_id()), **changes}
    answer = agent.post("/guests", guest)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == 400
    assert answer.json()["reason"] == "invalid"
    assert answer.json()["field"] == field


def test_a_nic_without_a_mac_gets_the_guests_own(agent: AgentProcess) -> None:
    guest = agent.guest(agent.with_image(), nics=[{"network": "br0"}])
    agent.bind(guest["id"])
    agent.done(agent.post("/guests", guest))
    assert agent.get(f"/guests/{guest['id']}").json()["nics"][0]["mac"].startswith("02:")
