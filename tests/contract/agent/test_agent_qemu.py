"""A real guest by a real agent: QEMU under a libvirtd of our own, reached over its bridge."""

from __future__ import annotations

import contextlib
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from lochness.identity import new_id
from lochness_lab.etcd import EtcdServer
from lochness_lab.guest_image import MEMORY_MB, GuestImage
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import JSON, AgentProcess, leased_agent

BRIDGE, GATEWAY, ADDRESS = "agent0", "10.91.7.1", "10.91.7.20"
BOOT_LIMIT_S = 120
PING_LIMIT_S = 20
RECOVERY_LIMIT_S = 30
UEFI_MEMORY_MB = 192
UEFI_BOOT_LIMIT_S = 240


@pytest.fixture
def qemu_agent(
    machine: Machine, libvirtd: Libvirtd, etcd_server: EtcdServer, guest_image: GuestImage, tmp_path: Path
) -> Iterator[AgentProcess]:
    machine.bridge(BRIDGE, f"{GATEWAY}/24")
    with leased_agent(
        tmp_path,
        etcd_server.url,
        libvirt=libvirtd.uri_outside,
        image_source_dirs=[str(guest_image.directory)],
        shutdown_timeout_s=100,
        domain_type="qemu",  # what the self-test says is another test's question
    ) as agent:
        yield agent
        for guest in agent.get("/guests").json():  # a test that failed half-way; the machine is shared
            agent.done(agent.post(f"/guests/{guest['id']}/delete"))
    machine.run(["ip", "link", "delete", BRIDGE])


#: Says what the first disk holds and adds a sign to it, at each boot.
COUNT_BOOTS = """#!/bin/sh
held=$(dd if=/dev/vda bs=64 count=1 2>/dev/null | tr -d '\\0')
printf '%s+' "$held" | dd of=/dev/vda conv=fsync 2>/dev/null
echo "DISK-HELD <$held> GUEST-DONE"
"""


@pytest.fixture
def image(qemu_agent: AgentProcess, guest_image: GuestImage) -> str:
    """The demo guest's image with its own kernel, fetched."""
    return fetched(qemu_agent, guest_image, "kernel")


def fetched(agent: AgentProcess, guest_image: GuestImage, kernel: Literal["kernel", "efi_kernel"]) -> str:
    id = new_id()
    request = {
        "id": id, "type": "kvm", "source": f"file://{guest_image.disk}", "sha256": guest_image.sha256["disk"],
        "kernel": f"file://{getattr(guest_image, kernel)}", "kernel_sha256": guest_image.sha256[kernel],
        "initrd": f"file://{guest_image.initrd}", "initrd_sha256": guest_image.sha256["initrd"],
        "cmdline": guest_image.cmdline,
    }  # fmt: skip
    agent.done(agent.post("/images", request))
    return id


def request_for(agent: AgentProcess, image: str, address: str, **metadata: str) -> JSON:
    """A guest at this address, bound here."""
    last = int(address.rpartition(".")[2])
    nic = {
        "name": "eth0", "network": BRIDGE, "mac": f"02:00:00:00:91:{last:02x}", "address": address,
        "netmask": "ffffff00", "gateway": GATEWAY, "vlans": [1],
    }  # fmt: skip
    guest = agent.guest(image, nics=[nic], disks=[{"size": 32, "image": image}], memory=MEMORY_MB, metadata=metadata)
    agent.bind(guest["id"])
    return guest


def answers_ping(machine: Machine, address: str = ADDRESS) -> bool:
    return machine.run(["ping", "-c1", "-W1", address], is_checked=False).returncode == 0


@pytest.mark.timeout(300)
def test_a_guests_whole_life(
    qemu_agent: AgentProcess, image: str, machine: Machine, libvirtd: Libvirtd, tmp_path: Path
) -> None:
    agent = qemu_agent
    guest = request_for(agent, image, ADDRESS, **{"name": "web-1", "user-data": COUNT_BOOTS})
    id, path, directory = guest["id"], f"/guests/{guest['id']}", agent.guest_dir / guest["id"]
    console = directory / "console.log"
    guest["disks"].append({"size": 8})

    def wait_for_boot(held: str, times: int = 1) -> None:
        wait_until(
            lambda: console.exists() and console.read_text().count(f"DISK-HELD <{held}> GUEST-DONE") == times,
            limit_s=BOOT_LIMIT_S,
            what=f"guest that found <{held}>",
        )

    # It boots from its image, takes its name and its address from its seed, and answers.
    assert "is running" in agent.done(agent.post("/guests", guest))["Message"]
    wait_for_boot("")
    assert "web-1 ready: GUEST-READY" in console.read_text()
    wait_until(lambda: answers_ping(machine), limit_s=PING_LIMIT_S, what="answer to a ping")
    process = pid_of(machine, id)
    assert agent.delete(f"/images/{image}").status_code == 409
    assert [(disk["device"], disk["size"]) for disk in agent.get(path).json()["disks"]] == [("vda", 32), ("vdb", 8)]
    assert libvirtd.virsh("domblkinfo", id, "vdb").stdout.split()[1] == str(8 << 20)
    machine.run(["test", "-c", libvirtd.virsh("ttyconsole", id).stdout.strip()])

    # It does not notice that the agent is killed and comes back, nor that libvirtd is restarted.
    agent.process.kill()
    agent.start()
    assert agent.get(path).json()["state"] == "running"
    libvirtd.restart()
    wait_until(
        lambda: agent.get(path).json().get("state") == "running", limit_s=RECOVERY_LIMIT_S, what="guest in libvirt"
    )
    assert answers_ping(machine)
    assert pid_of(machine, id) == process

    # It is snapshotted while it runs, goes on, writes more; and goes back, bound anew in between.
    taken = agent.done(agent.post(f"{path}/snapshots", {"name": "booted-once"}))
    assert "snapshot booted-once of vda, vdb was taken" in taken["Message"]
    assert answers_ping(machine)
    agent.done(agent.post(f"{path}/restart"))
    wait_for_boot("+")
    downloaded = tmp_path / "downloaded.qcow2"
    downloaded.write_bytes(agent.get(f"{path}/disks/vda/snapshots/booted-once/download").content)
    assert first_bytes(downloaded) == b"+"
    revision = agent.bind(id)
    agent.done(agent.post(f"{path}/snapshots/booted-once/rollback"))
    assert f'binding-revision="{revision}"' in libvirtd.virsh("dumpxml", id).stdout
    wait_for_boot("+")  # and not "++": the console begins anew with the process
    wait_until(lambda: answers_ping(machine), limit_s=PING_LIMIT_S, what="answer to a ping after the rollback")
    agent.done(agent.delete(f"{path}/snapshots/booted-once"))

    # It obeys the power button, also when that is pressed before it has learned to listen.
    assert "shut down by itself" in agent.done(agent.post(f"{path}/shutdown"))["Message"]
    assert agent.get(path).json()["state"] == "stopped"
    agent.done(agent.post(f"{path}/start"))
    assert "shut down by itself" in agent.done(agent.post(f"{path}/shutdown"))["Message"]
    assert pid_of(machine, id) is None

    # It is deleted, and nothing of it remains: no domain, no file, no process, no answer.
    agent.done(agent.post(f"{path}/start"))
    agent.done(agent.post(f"{path}/delete"))
    assert libvirtd.virsh("list", "--all", "--name").stdout.split() == []
    assert list(agent.guest_dir.iterdir()) == []
    assert pid_of(machine, id) is None
    assert not answers_ping(machine)
    assert agent.delete(f"/images/{image}").status_code == 200
    assert list(agent.image_dir.iterdir()) == []


@pytest.mark.timeout(300)
def test_ten_guests_at_once(qemu_agent: AgentProcess, image: str, machine: Machine, libvirtd: Libvirtd) -> None:
    agent = qemu_agent
    addresses = [f"{ADDRESS.rpartition('.')[0]}.{last}" for last in range(30, 40)]
    guests = [request_for(agent, image, address) for address in addresses]
    jobs = [agent.post("/guests", guest) for guest in guests]
    for job in jobs:
        agent.done(job)
    assert {each["state"] for each in agent.get("/guests").json()} == {"running"}
    waiting = set(addresses)

    def all_have_answered() -> bool:
        waiting.difference_update([address for address in waiting if answers_ping(machine, address)])
        return not waiting

    wait_until(all_have_answered, limit_s=BOOT_LIMIT_S, what="answers of all ten")
    jobs = [agent.post(f"/guests/{guest['id']}/delete") for guest in guests]
    for job in jobs:
        agent.done(job)
    assert libvirtd.virsh("list", "--all", "--name").stdout.split() == []
    assert list(agent.guest_dir.iterdir()) == []


@pytest.mark.timeout(120)
def test_what_the_host_cannot_do_is_refused_with_the_reason(qemu_agent: AgentProcess, image: str) -> None:
    """VLANs on a bridge that has none, and a bridge that is not here."""
    agent = qemu_agent
    guest = request_for(agent, image, ADDRESS)
    guest["nics"][0]["vlans"] = [7]
    job = agent.refused(agent.post("/guests", guest))
    assert job["Reason"] == "vlans_not_supported"
    assert f"bridge {BRIDGE} cannot carry the VLANs 7: " in job["Message"]


@pytest.mark.timeout(400)
def test_a_guest_with_uefi_keeps_its_variables_until_it_is_deleted(
    qemu_agent: AgentProcess, guest_image: GuestImage, machine: Machine, libvirtd: Libvirtd
) -> None:
    """A kernel that only a BIOS can start is refused; one that UEFI can start boots, and answers."""
    agent = qemu_agent
    unfit = fetched(agent, guest_image, "kernel")
    refused = agent.refused(agent.post("/guests", request_for(agent, unfit, ADDRESS, firmware="uefi")))
    assert refused["Reason"] == "kernel_not_efi"

    guest = request_for(agent, fetched(agent, guest_image, "efi_kernel"), ADDRESS, firmware="uefi")
    guest["memory"] = UEFI_MEMORY_MB
    path, console = f"/guests/{guest['id']}", agent.guest_dir / guest["id"] / "console.log"

    def wait_for_boot() -> None:
        wait_until(
            lambda: console.exists() and "GUEST-READY" in console.read_text(errors="replace"),
            limit_s=UEFI_BOOT_LIMIT_S,
            what="guest that was booted by UEFI",
        )
        wait_until(lambda: answers_ping(machine), limit_s=PING_LIMIT_S, what="answer to a ping")

    agent.done(agent.post("/guests", guest))
    wait_for_boot()
    nvram = ET.fromstring(libvirtd.virsh("dumpxml", guest["id"]).stdout).findtext("os/nvram", "")
    variables = libvirtd.directory / "lib" / Path(nvram).relative_to("/var/lib/libvirt")
    assert guest["id"] in variables.name

    # Its snapshots are of its disks; the variables stay, also over a stop and a start.
    before = variables.stat().st_ino
    agent.done(agent.post(f"{path}/snapshots", {"name": "with-variables"}))
    assert "shut down by itself" in agent.done(agent.post(f"{path}/shutdown"))["Message"]
    agent.done(agent.post(f"{path}/snapshots/with-variables/rollback"))
    agent.bind(guest["id"])  # it is defined anew
    agent.done(agent.post(f"{path}/start"))
    assert variables.stat().st_ino == before

    agent.done(agent.post(f"{path}/delete"))
    assert not variables.exists()
    assert list(variables.parent.iterdir()) == []
    assert libvirtd.virsh("list", "--all", "--name").stdout.split() == []


def pid_of(machine: Machine, guest_id: str) -> int | None:
    """The guest's QEMU."""
    for pid in machine.pids():
        with contextlib.suppress(OSError):  # ended just now
            if f"uuid\0{guest_id}" in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                return pid
    return None


def first_bytes(disk: Path) -> bytes:
    """What the disk begins with, up to the first zero."""
    raw = disk.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw], check=True, timeout=30)
    return raw.read_bytes()[:64].rstrip(b"\0")


@pytest.mark.timeout(120)
def test_a_guest_that_does_not_start_leaves_nothing(
    qemu_agent: AgentProcess, libvirtd: Libvirtd, guest_image: GuestImage
) -> None:
    agent = qemu_agent
    image = new_id()
    agent.done(agent.post("/images", {"id": image, "source": f"file://{guest_image.disk}"}))
    guest = agent.guest(image, disks=[{"size": 32, "image": image}], nics=[{"network": "nosuchbr0"}])
    agent.bind(guest["id"])
    job = agent.refused(agent.post("/guests", guest))
    assert job["Reason"] == "driver_failed"
    assert "nosuchbr0" in job["Message"]
    assert libvirtd.virsh("list", "--all", "--name").stdout.split() == []
    assert list(agent.guest_dir.iterdir()) == []
