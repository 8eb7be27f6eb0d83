"""What the seed says, seen from inside: a whole Debian with cloud-init as a guest. One boot, and a reboot."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lochness.identity import new_id
from lochness_lab.cloud_image import DISK_BYTES, CloudImage, cloud_image
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import JSON, AgentProcess

BRIDGE, GATEWAY, ADDRESS, MTU = "cloud0", "10.91.8.1", "10.91.8.20", 1450
DISK_MB = 2 * (DISK_BYTES >> 20)
#: By emulation a quiet machine needs 6 to 10 minutes for a boot.
BOOT_LIMIT_S = 2400.0
COMMAND_LIMIT_S = 300.0
CONSOLE_LINES = 60

#: Run by cloud-init once for each instance-id, after all else.
USER_DATA = "#!/bin/sh\necho first boot of $(hostname) >>/home/debian/boots\n"


@dataclass(frozen=True, slots=True)
class Inside:
    """The guest's inside, by ssh from the machine that carries it. It must stay who it was at the first contact."""

    machine: Machine
    key: Path

    def run(self, command: str, *, limit_s: float = COMMAND_LIMIT_S) -> str:
        """What the command says, as the image's own user. Raises UnavailableError, DeadlineError."""
        return self.machine.run([*self._ssh(), command], timeout_s=limit_s).stdout.strip()

    def boot(self) -> str:
        """The boot's id, "" while nobody can log in."""
        command = [*self._ssh(), "cat /proc/sys/kernel/random/boot_id"]
        return self.machine.run(command, timeout_s=COMMAND_LIMIT_S, is_checked=False).stdout.strip()

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "60",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.key.with_suffix(".known")),
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        return ["ssh", "-F", "none", "-i", str(self.key), *words, f"debian@{ADDRESS}"]


@pytest.fixture(scope="module")
def image() -> CloudImage:
    """The image, out of the cache or built now."""
    return cloud_image(tell=print)


@pytest.fixture
def agent(
    machine: Machine, libvirtd: Libvirtd, etcd_server: EtcdServer, image: CloudImage, tmp_path: Path
) -> Iterator[AgentProcess]:
    machine.bridge(BRIDGE, f"{GATEWAY}/24")
    machine.run(["ip", "link", "set", BRIDGE, "mtu", str(MTU)])
    agent = AgentProcess(
        tmp_path, etcd_server.url, libvirt=libvirtd.uri_outside, image_source_dirs=[str(image.directory)]
    )
    # The bridge's MTU is read below /sys, which is the machine's own.
    agent.program = ["nsenter", "--target", str(machine.pid), "--mount", *agent.program]
    with agent:
        agent.hold_lease()
        yield agent
        for guest in agent.get("/guests").json():  # a test that failed half-way; the machine is shared
            agent.done(agent.post(f"/guests/{guest['id']}/delete"))
    machine.run(["ip", "link", "delete", BRIDGE])


@pytest.mark.cloudimage
@pytest.mark.timeout(3 * BOOT_LIMIT_S)
def test_a_debian_becomes_what_its_seed_says(
    agent: AgentProcess, machine: Machine, image: CloudImage, tmp_path: Path
) -> None:
    inside = Inside(machine, new_key(tmp_path / "id_ed25519"))
    guest = request_for(agent, fetched(agent, image), inside.key.with_suffix(".pub").read_text())
    id = guest["id"]
    expected = {
        "cloud-init": {"status": "done", "errors": []},
        "complaints": "",
        "instance-id": id,
        "host name": "web-1",
        "address": [f"{ADDRESS}/24"],
        "gateway": [GATEWAY],
        "nameserver": GATEWAY,
        "mtu": MTU,
        "disk": DISK_MB << 20,
        "boots": "first boot of web-1",
    }
    with console_shown(agent.guest_dir / id / "console.log"):
        agent.done(agent.post("/guests", guest))
        boot = wait_until(inside.boot, limit_s=BOOT_LIMIT_S, what="ssh into the guest", poll_s=5)
        assert seen(inside) == expected
        # Most of what was added is the root file system's: it has grown with its partition.
        assert int(inside.run("findmnt --noheadings --bytes --output SIZE /")) > (DISK_MB << 20) * 0.9
        keys = inside.run("cat /etc/ssh/ssh_host_*_key.pub")

        # After a reboot it is the same guest: cloud-init gives it no new keys, and does not run the user's data again.
        agent.done(agent.post(f"/guests/{id}/reboot"))
        wait_until(lambda: inside.boot() not in ("", boot), limit_s=BOOT_LIMIT_S, what="second boot", poll_s=5)
        assert seen(inside) == expected
        assert inside.run("cat /etc/ssh/ssh_host_*_key.pub") == keys
    agent.done(agent.post(f"/guests/{id}/delete"))


def new_key(file: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True, timeout=30)
    return file


def fetched(agent: AgentProcess, image: CloudImage) -> str:
    id = new_id()
    request = {
        "id": id, "type": "kvm", "source": f"file://{image.disk}", "kernel": f"file://{image.kernel}",
        "initrd": f"file://{image.initrd}", "cmdline": image.cmdline,
    }  # fmt: skip
    agent.done(agent.post("/images", request))
    return id


def request_for(agent: AgentProcess, image: str, key: str) -> JSON:
    """The guest, bound here."""
    nic = {
        "name": "eth0", "network": BRIDGE, "mac": "02:00:00:00:92:14", "address": ADDRESS, "netmask": "ffffff00",
        "gateway": GATEWAY, "vlans": [1],
    }  # fmt: skip
    metadata = {"name": "web-1", "ssh-keys": key, "nameservers": GATEWAY, "user-data": USER_DATA}
    disks = [{"size": DISK_MB, "image": image}]
    guest = agent.guest(image, nics=[nic], disks=disks, memory=1024, cpu=2, metadata=metadata)
    agent.bind(guest["id"])
    return guest


def seen(inside: Inside) -> JSON:
    """What the guest has become, when cloud-init has ended in it."""
    # Its status is 1 when it had errors; what they were is asked next.
    inside.run("cloud-init status --wait || true", limit_s=BOOT_LIMIT_S)
    status = json.loads(inside.run("cloud-init status --format json || true"))
    (link,) = json.loads(inside.run("ip -json -4 address show dev eth0"))
    routes = json.loads(inside.run("ip -json route show default dev eth0"))
    return {
        "cloud-init": {"status": status["status"], "errors": status["errors"]},
        "complaints": inside.run("grep -E 'WARNING|ERROR|Traceback' /var/log/cloud-init.log || true"),
        "instance-id": inside.run("cat /var/lib/cloud/data/instance-id"),
        "host name": inside.run("hostname"),
        "address": [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]],
        "gateway": [route["gateway"] for route in routes],
        "nameserver": inside.run("resolvectl dns eth0").rpartition(": ")[2],
        "mtu": link["mtu"],
        "disk": int(inside.run("lsblk --noheadings --bytes --nodeps --output SIZE /dev/vda")),
        "boots": inside.run("cat /home/debian/boots"),
    }


@contextmanager
def console_shown(log: Path) -> Iterator[None]:
    """What the guest's console said last is added to whatever fails in the block."""
    try:
        yield
    except BaseException as error:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else ["(no console)"]
        error.add_note("\n".join(["the end of the guest's console:", *lines[-CONSOLE_LINES:]]))
        raise
