"""How does one boot a cluster's hosts on a network, cut their power and cables, and be rid of them?

1. up() ends with every host booted and every daemon ready, or with nothing left running.
2. down() leaves nothing but the cache: no process, mount, namespace, cgroup or file, from any half-way state.
3. A laboratory is found by its directory: any process of this user can do anything to it, one after the other.
4. cut() makes islands: hosts that are cut off together still reach each other. No host can reach the real network.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from lochness.errors import ConfigurationError, UnavailableError
from lochness_lab.guest_image import default_cache, guest_image
from lochness_lab.hosts import roots
from lochness_lab.hosts.host import SWITCH, Host
from lochness_lab.hosts.plan import (
    MANAGEMENT,
    NETWORK,
    SWITCH_ADDRESS,
    HostPlan,
    plan,
)
from lochness_lab.hosts.room import Room
from lochness_lab.processes import require_program

READY_LIMIT_S: Final = 240.0

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

Tell = Callable[[str], None]


class Ground:
    """The hosts of the laboratory in `directory`, up or not; what is asked of their Loch Ness is in laboratory.py.

    `dist` holds the packages, `cache` the roots and the guest's image.
    """

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
