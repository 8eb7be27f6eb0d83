"""A real guest by a real agent: QEMU under a libvirtd of our own, reached over its bridge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness.identity import new_id
from lochness_lab.etcd import EtcdServer
from lochness_lab.guest_image import MEMORY_MB, GuestImage
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import AgentProcess, leased_agent

BRIDGE, GATEWAY, ADDRESS = "agent0", "10.91.7.1", "10.91.7.20"
BOOT_LIMIT_S = 40


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
        shutdown_timeout_s=20,
    ) as agent:
        yield agent
        for guest in agent.get("/guests").json():  # a test that failed half-way; the machine is shared
            agent.done(agent.post(f"/guests/{guest['id']}/delete"))
    machine.run(["ip", "link", "delete", BRIDGE])


def answers_ping(machine: Machine) -> bool:
    return machine.run(["ping", "-c1", "-W1", ADDRESS], is_checked=False).returncode == 0


@pytest.mark.timeout(180)
def test_a_guest_lives_from_create_to_delete(
    qemu_agent: AgentProcess, machine: Machine, libvirtd: Libvirtd, guest_image: GuestImage
) -> None:
    agent, image = qemu_agent, new_id()
    request = {
        "id": image, "type": "kvm", "source": f"file://{guest_image.disk}", "sha256": guest_image.sha256["disk"],
        "kernel": f"file://{guest_image.kernel}", "kernel_sha256": guest_image.sha256["kernel"],
        "initrd": f"file://{guest_image.initrd}", "initrd_sha256": guest_image.sha256["initrd"],
        "cmdline": guest_image.cmdline,
    }  # fmt: skip
    agent.done(agent.post("/images", request))
    nic = {
        "name": "eth0", "network": BRIDGE, "mac": "02:00:00:00:91:07", "address": ADDRESS,
        "netmask": "ffffff00", "gateway": GATEWAY, "vlans": [1],
    }  # fmt: skip
    guest = agent.guest(image, nics=[nic], disks=[{"size": 32, "image": image}], memory=MEMORY_MB)
    id, directory = guest["id"], agent.guest_dir / guest["id"]
    revision = agent.bind(id)

    assert "is running" in agent.done(agent.post("/guests", guest))["Message"]
    with_guest = machine.pids()
    assert f'binding-revision="{revision}"' in libvirtd.virsh("dumpxml", id).stdout
    console = directory / "console.log"
    wait_until(lambda: "web-1 ready: GUEST-READY" in console.read_text(), limit_s=BOOT_LIMIT_S, what="ready guest")
    wait_until(lambda: answers_ping(machine), limit_s=10, what="answer to a ping")
    assert agent.get(f"/guests/{id}").json()["state"] == "running"
    assert agent.delete(f"/images/{image}").status_code == 409

    assert "shut down by itself" in agent.done(agent.post(f"/guests/{id}/shutdown"))["Message"]
    assert agent.get(f"/guests/{id}").json()["state"] == "stopped"
    assert len(machine.pids()) < len(with_guest)

    revision = agent.bind(id)  # bound anew: the domain must carry the token of now
    agent.done(agent.post(f"/guests/{id}/start"))
    assert f'binding-revision="{revision}"' in libvirtd.virsh("dumpxml", id).stdout
    wait_until(lambda: answers_ping(machine), limit_s=BOOT_LIMIT_S, what="answer to a ping after the start")

    agent.done(agent.post(f"/guests/{id}/delete"))
    assert libvirtd.virsh("list", "--all", "--name").stdout.split() == []
    assert not directory.exists()
    assert list(agent.guest_dir.iterdir()) == []
    assert not answers_ping(machine)
    assert agent.delete(f"/images/{image}").status_code == 200
    assert list(agent.image_dir.iterdir()) == []


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
