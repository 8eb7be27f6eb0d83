"""How does one get a whole cluster of hosts that boot, break it, and be rid of it?

1. up() ends with every host booted and every daemon ready, or with nothing left running.
2. down() leaves nothing but the cache: no process, mount, namespace, cgroup or file, from any half-way state.
3. A laboratory is found by its directory: any process of this user can do anything to it, one after the other.
4. cut() makes islands: hosts that are cut off together still reach each other. No host can reach the real network.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from lochness.errors import ConfigurationError, LochnessError, UnavailableError
from lochness_lab.guest_image import MEMORY_MB, default_cache, guest_image, read_image
from lochness_lab.hosts import roots
from lochness_lab.hosts.host import SWITCH, Host
from lochness_lab.hosts.plan import (
    BRIDGE,
    GUESTS_FIRST,
    GUESTS_LAST,
    MANAGEMENT,
    NETWORK,
    SWITCH_ADDRESS,
    HostPlan,
    etcd_urls,
    plan,
)
from lochness_lab.hosts.room import Room
from lochness_lab.processes import require_program
from lochness_lab.waiting import wait_until

READY_LIMIT_S: Final = 240.0
CLI_LIMIT_S: Final = 180.0
#: So many of the operator's commands run at once: each keeps a processor busy for most of its time.
COMMANDS: Final = 3
IMAGES: Final = "/var/lib/lochness/images"
FLAVOR, IMAGE, LAN, SUBNET = "tiny", "tiny-linux", "lab-net", "lab-subnet"
DISK_MB: Final = 16
UNITS: Final = ("lochness-heartbeat", "lochness-resources", "lochness-guestwatch", "lochness-agent")
CONTROLLER: Final = "lochness-controller"

_SWITCH_ON = """
ip link add "$1" type bridge forward_delay 0 stp_state 0
ip link set "$1" up
ip address add "$2" dev "$1"
"""
_CUT = """
island=$1; shift
ip link add "$island" type bridge forward_delay 0 stp_state 0
ip link set "$island" up
for name in "$@"; do ip link set "v-$name" master "$island"; done
"""

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

Tell = Callable[[str], None]


def default_directory() -> Path:
    return Path("/var/tmp/lochness-hosts")


class Laboratory:
    """The laboratory in `directory`, up or not. `dist` holds the packages, `cache` the roots and the guest's image."""

    def __init__(
        self,
        directory: Path,
        *,
        dist: Path = Path("dist"),
        cache: Path | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        self.directory = directory.absolute()
        self.room = Room(self.directory)
        self._dist = dist.absolute()
        self._cache = (cache or default_cache()).absolute()
        self.tell = tell
        self._hosts: dict[str, Host] = {}

    # ------------------------------------------------------------------------------------------------------- its life

    def prepare(self) -> None:
        """Make what `up` needs, and nothing that is there already: the packages, the hosts' roots, the guests' image.

        The packages are made in `dist`, which must be a checkout's, while the hosts' Debian is: they know nothing of
        each other. Raises ConfigurationError, UnavailableError or DeadlineError.
        """
        roots.require_root()
        with roots.packages_built(self._dist.parent):
            roots.debian_root(self._cache, tell=self.tell)
            guest_image(self._cache)
        roots.both_roots(self._cache, self._dist, tell=self.tell)

    def up(self, hypervisors: int, *, ends_with_us: bool) -> None:
        """Build what is missing and boot everything; with `ends_with_us` it ends when the calling thread does.

        Raises ConfigurationError, UnavailableError or DeadlineError; then nothing is left running.
        """
        plans = plan(hypervisors)
        roots.require_root()
        for program, package in (
            ("systemd-nspawn", "systemd-container"),
            ("ip", "iproute2"),
            ("nsenter", "util-linux"),
        ):
            require_program(program, package)
        self._require_ours()
        if self.is_up:
            raise ConfigurationError(f"the laboratory in {self.directory} is up already; lochness-lab down ends it")
        hypervisor, management = roots.both_roots(self._cache, self._dist, tell=self.tell)
        image = guest_image(self._cache)
        self.down()
        self.directory.mkdir(parents=True)
        (self.directory / "lab.json").write_text(
            json.dumps(
                {
                    "hypervisors": hypervisors,
                    "roots": {"hypervisor": str(hypervisor), "management": str(management)},
                    "image": str(image.directory),
                }
            )
        )
        try:
            self.room.open(ends_with_us=ends_with_us)
            self.room.script(_SWITCH_ON, SWITCH, f"{SWITCH_ADDRESS}/{NETWORK.prefixlen}")
            self.tell(f"{len(plans)} hosts boot: {', '.join(plan.name for plan in plans)}")
            self._load()
            for host in self.hosts:
                host.furnish()
                host.start()
            self.wait_until_ready()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End everything and remove it; nothing there is fine. Raises ConfigurationError for a foreign directory."""
        self._require_ours()
        self.room.close()
        self._hosts.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def is_up(self) -> bool:
        return self.room.is_open

    def wait_until_ready(self, hosts: Sequence[Host] | None = None) -> None:
        """Return when these hosts, or all, have booted with all their units. Raises UnavailableError, DeadlineError."""
        for host in self.hosts if hosts is None else hosts:
            host.wait_until_up(READY_LIMIT_S)
            failed = host.run("systemctl", "--failed", "--no-legend", "--plain").stdout.strip()
            if failed:
                raise UnavailableError(f"failed on {host.name}: {'; '.join(failed.splitlines())}")

    # ------------------------------------------------------------------------------------------------------- its hosts

    @property
    def hosts(self) -> list[Host]:
        """m1, h1, h2, ... Raises UnavailableError when the laboratory is not up."""
        self._load()
        return list(self._hosts.values())

    @property
    def hypervisors(self) -> list[Host]:
        return [host for host in self.hosts if host.plan.is_hypervisor]

    @property
    def images(self) -> Path:
        """The directory that hosts see as /var/lib/lochness/images."""
        return Path(self._state["image"])

    @property
    def management(self) -> Host:
        return self.host(MANAGEMENT)

    def host(self, name: str) -> Host:
        """Raises ConfigurationError for a name that no host has."""
        self._load()
        if name not in self._hosts:
            raise ConfigurationError(f"there is no host {name!r}; there are {', '.join(self._hosts)}")
        return self._hosts[name]

    def power_on(self, *names: str) -> None:
        """Raises ConfigurationError, UnavailableError, DeadlineError."""
        hosts = [self.host(name) for name in names]
        for host in hosts:
            host.start()
        self.wait_until_ready(hosts)

    def cut(self, *names: str) -> None:
        """Take these hosts off the network, as an island of their own. Raises ConfigurationError."""
        for name in names:
            self.host(name)
        self.room.script(_CUT, f"isle-{self._island()}", *names)

    def heal(self) -> None:
        """Every host on the network again."""
        for host in self.hosts:
            self.room.run(["ip", "link", "set", f"v-{host.name}", "master", SWITCH])
        for name in self._islands():
            self.room.run(["ip", "link", "delete", name])

    def isolated(self) -> dict[str, str]:
        """The hosts that are cut off, and on which island."""
        ports = json.loads(self.room.run(["ip", "-j", "link", "show", "type", "veth"]).stdout)
        masters = {port.get("ifname", ""): port.get("master", "") for port in ports}
        islands = {host.name: masters.get(f"v-{host.name}", "") for host in self.hosts}
        return {name: island for name, island in islands.items() if island.startswith("isle-")}

    # ----------------------------------------------------------------------------------------------------- its cluster

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

    def describe(self) -> Iterator[tuple[str, ...]]:
        """One row a host: name, address, power, network, etcd, units, guests. The first row is the heading."""
        yield ("HOST", "ADDRESS", "POWER", "NETWORK", "ETCD", "LOCH NESS", "GUESTS")
        isolated = self.isolated()
        leader = ""
        with contextlib.suppress(LochnessError):
            leader = self.etcd_leader().name
        with ThreadPoolExecutor(max_workers=8) as threads:
            yield from threads.map(lambda host: self._row(host, isolated, leader), self.hosts)

    def _row(self, host: Host, isolated: dict[str, str], leader: str) -> tuple[str, ...]:
        member = "" if not host.plan.has_etcd else "leader" if host.name == leader else "member"
        network = f"cut off ({isolated[host.name]})" if host.name in isolated else "yes"
        if not host.leader:
            return (host.name, host.plan.address, "off", network, member, "", "")
        units = UNITS if host.plan.is_hypervisor else (CONTROLLER,)
        states = host.run("systemctl", "is-active", *units, is_checked=False).stdout.split()
        ill = [f"{unit.removeprefix('lochness-')} {state}" for unit, state in zip(units, states, strict=False)]
        health = ", ".join(text for text, state in zip(ill, states, strict=False) if state != "active") or "active"
        guests = ""
        if host.plan.is_hypervisor:
            with contextlib.suppress(LochnessError):
                domains = host.domains()
                guests = f"{sum(state == 'running' for state in domains.values())} of {len(domains)} run"
        return (host.name, host.plan.address, "on", network, member, health, guests)

    # ------------------------------------------------------------------------------------------------------- its state

    @property
    def _state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.directory / "lab.json").read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnavailableError(f"there is no laboratory in {self.directory}; lochness-lab up makes one") from error
        return found

    @property
    def _plans(self) -> tuple[HostPlan, ...]:
        return plan(self._state["hypervisors"])

    def _load(self) -> None:
        if not self._hosts:
            state = self._state
            if not self.room.is_open:
                raise UnavailableError(f"the laboratory in {self.directory} is not up; lochness-lab up makes a new one")
            plans = plan(state["hypervisors"])
            for item in plans:
                root = Path(state["roots"]["hypervisor" if item.is_hypervisor else "management"])
                self._hosts[item.name] = Host(item, plans, self.room, root, Path(state["image"]))

    def _require_ours(self) -> None:
        """Nobody's files are removed because of a mistyped directory."""
        try:
            entries = {path.name for path in self.directory.iterdir()}
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"{self.directory} cannot hold a laboratory: {error.strerror}") from error
        if entries and "lab.json" not in entries:
            raise ConfigurationError(f"{self.directory} holds other files, and a laboratory removes its directory")

    def _islands(self) -> list[str]:
        found = json.loads(self.room.run(["ip", "-j", "link", "show", "type", "bridge"]).stdout)
        return [link["ifname"] for link in found if link.get("ifname", "").startswith("isle-")]

    def _island(self) -> int:
        taken = {int(name.removeprefix("isle-")) for name in self._islands()}
        return min(set(range(1, len(taken) + 2)) - taken)
