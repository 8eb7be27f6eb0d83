"""What can one ask of the Loch Ness on a laboratory's hosts: its operator's command, guests, etcd?

The hosts themselves, their power and their network are in ground.py.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from lochness.errors import UnavailableError
from lochness_lab.guest_image import MEMORY_MB, read_image
from lochness_lab.hosts.ground import READY_LIMIT_S, Ground
from lochness_lab.hosts.host import Host
from lochness_lab.hosts.plan import BRIDGE, GUESTS_FIRST, GUESTS_LAST, NETWORK, SWITCH_ADDRESS, etcd_urls
from lochness_lab.waiting import wait_until

CLI_LIMIT_S: Final = 180.0
#: So many of the operator's commands run at once: each keeps a processor busy for most of its time.
COMMANDS: Final = 3
IMAGES: Final = "/var/lib/lochness/images"
FLAVOR, IMAGE, LAN, SUBNET = "tiny", "tiny-linux", "lab-net", "lab-subnet"
DISK_MB: Final = 16
UNITS: Final = ("lochness-heartbeat", "lochness-resources", "lochness-guestwatch", "lochness-agent")
CONTROLLER: Final = "lochness-controller"

# What guests of a laboratory are made of, for `lochness apply`; it stays on m1 for whoever wants to change it.
_CATALOG = """\
[network.{network}]

[subnet.{subnet}]
network = "{network}"
cidr = "{cidr}"
start = "{start}"
end = "{end}"
gateway = "{gateway}"

[image.{name}]
format = "qcow2"
cmdline = {cmdline}
source = "file://{directory}/{image.disk.name}"
sha256 = "{image.sha256[disk]}"
kernel = "file://{directory}/{image.kernel.name}"
kernel_sha256 = "{image.sha256[kernel]}"
initrd = "file://{directory}/{image.initrd.name}"
initrd_sha256 = "{image.sha256[initrd]}"

[flavor.{flavor}]
image = "{name}"
memory = {memory_mb}
disk = {disk_mb}
cpu = 1
"""


class Laboratory(Ground):
    """Hosts with the Loch Ness of their packages on them, which the methods here use."""

    def cli(self, *words: str, limit_s: float = CLI_LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run `lochness` on m1 to its end, whatever that is. Raises UnavailableError, DeadlineError."""
        return self.management.run("lochness", *words, limit_s=limit_s, is_checked=False)

    def records(self, *words: str, limit_s: float = CLI_LIMIT_S) -> list[dict[str, Any]]:
        """The objects that `lochness -j` prints. Raises UnavailableError when it fails."""
        done = self.cli("-j", *words, limit_s=limit_s)
        if done.returncode != 0:
            raise UnavailableError(f"lochness {shlex.join(words)}: status {done.returncode}: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def record(self, *words: str) -> dict[str, Any]:
        """As `records` for exactly one."""
        (found,) = self.records(*words)
        return found

    def register(self) -> None:
        """Enter the hypervisors, and what a guest needs. Raises UnavailableError, DeadlineError."""

        def enter(host: Host) -> None:
            identity = ("--id", host.plan.hypervisor_id, "--name", host.name, "--ip", host.plan.address)
            self.record("hv", "create", *identity, "--metadata", f"zone={host.name}")

        def connect(host: Host) -> None:
            self.records("hv", "subnets", host.name, f"{SUBNET}={BRIDGE}")

        with ThreadPoolExecutor(max_workers=COMMANDS) as threads:
            catalog = threads.submit(self._make_catalog)
            list(threads.map(enter, self.hypervisors))
            catalog.result()
            list(threads.map(connect, self.hypervisors))
        wait_until(
            lambda: all(item["alive"] and item["available_resources"]["memory"] for item in self.records("hv", "list")),
            limit_s=READY_LIMIT_S,
            what="heartbeat and resources of every hypervisor",
        )

    def _make_catalog(self) -> None:
        image = read_image(self.images)
        file = self.management.files / "root/lab.toml"
        file.write_text(
            _CATALOG.format(
                network=LAN,
                subnet=SUBNET,
                cidr=NETWORK,
                start=GUESTS_FIRST,
                end=GUESTS_LAST,
                gateway=SWITCH_ADDRESS,
                name=IMAGE,
                cmdline=json.dumps(image.cmdline),
                directory=IMAGES,
                image=image,
                flavor=FLAVOR,
                memory_mb=MEMORY_MB,
                disk_mb=DISK_MB,
            )
        )
        self.records("apply", "--yes", "--file", "/root/lab.toml")

    def create_guest(self, name: str, *options: str) -> dict[str, Any]:
        """A guest that has been created, as the API shows it. Raises UnavailableError, DeadlineError."""
        self.records("guest", "create", "--name", name, "--flavor", FLAVOR, "--network", LAN, *options, "--wait")
        return self.record("guest", "show", name)

    def host_of(self, guest: dict[str, Any]) -> Host:
        """Raises UnavailableError for a guest without a host."""
        for host in self.hypervisors:
            if host.plan.hypervisor_id == guest.get("hypervisor"):
                return host
        raise UnavailableError(f"guest {guest.get('name') or guest['id']} has no host")

    def pings(self, address: str, limit_s: int = 2) -> bool:
        """Whether `address` answers a ping that comes over the switch."""
        words = ["ping", "-n", "-q", "-c", "1", "-W", str(limit_s), address]
        return self.room.run(words, is_checked=False).returncode == 0

    def fsck(self) -> str:
        """What `lochness fsck` says about the store, "" when all its promises hold. Raises UnavailableError."""
        done = self.etcd_member().run("lochness", "fsck", "--etcd", etcd_urls(self._plans), is_checked=False)
        return "" if done.returncode == 0 else f"status {done.returncode}: {done.stdout}{done.stderr}".strip()

    def etcd_member(self) -> Host:
        """A member of etcd whose host is on. Raises UnavailableError."""
        for host in self.hosts:
            if host.plan.has_etcd and host.leader:
                return host
        raise UnavailableError("no host with a member of etcd is on")

    def etcd_leader(self) -> Host:
        """The host with etcd's leader. Raises UnavailableError while there is none."""
        for host in self.hosts:
            if host.plan.has_etcd and host.leader:
                done = host.run(
                    *("etcdctl", "--endpoints", f"http://{host.plan.address}:2379", "endpoint", "status", "-w", "json"),
                    is_checked=False,
                )
                with contextlib.suppress(ValueError, LookupError):
                    status = json.loads(done.stdout)[0]["Status"]
                    if status["leader"] == status["header"]["member_id"]:
                        return host
        raise UnavailableError("etcd has no leader")
