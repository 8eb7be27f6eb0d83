"""What is one host of the laboratory? A systemd-nspawn container with systemd as pid 1, that can lose its power.

1. It boots in the laboratory's room, on a layer of its own over a root that it never changes. The layer is its disk: it
   stays over a power cut.
2. A host without power is silent: its cable is dead and its network namespace is made anew at the next boot.
3. Commands run in all of its namespaces, as root, with nothing of our environment.

A power cut loses no data that a real one would lose out of the disk's cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lochness.errors import ConfigurationError, DeadlineError, UnavailableError
from lochness_lab.hosts.commands import reap, run, start
from lochness_lab.hosts.plan import BRIDGE, HostPlan, files, units
from lochness_lab.hosts.room import Room, began_at
from lochness_lab.processes import die_with_us, process_state
from lochness_lab.waiting import wait_until

BOOT_LIMIT_S: Final = 90.0
OFF_LIMIT_S: Final = 60.0
SWITCH: Final = "lan0"
_ENVIRONMENT: Final = (
    *("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    *("HOME=/root", "LANG=C.UTF-8", "PAGER=cat"),
)
_UP: Final = ("running", "degraded")

# The interface in the host is a port of its bridge, as guests' are; the other end is a port of the switch.
_WIRE = """
name=$1 address=$2 mac=$3 bridge=$4 switch=$5
ip netns delete "$name" 2>/dev/null || true
ip link delete "v-$name" 2>/dev/null || true
ip netns add "$name"
ip -n "$name" link set lo up
ip link add "v-$name" type veth peer name eth0 netns "$name" address "$mac"
ip link set "v-$name" master "$switch" up
ip -n "$name" link add "$bridge" address "$mac" type bridge forward_delay 0 stp_state 0
ip -n "$name" link set eth0 master "$bridge" up
ip -n "$name" link set "$bridge" up
ip -n "$name" address add "$address/24" dev "$bridge"
"""

# Its processes begin in cgroups of the host's own, wherever this machine has those that systemd uses. Invariant: only
# such directories are made in the real machine, and Room.close() removes them.
_BOOT = """
group=$1; shift
for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e "$tree/cgroup.procs" ] || continue
    mkdir -p "$tree/$group"
    echo $$ >"$tree/$group/cgroup.procs"
done
exec "$@"
"""


class Host:
    """The host that `plan` describes, one of `plans`, in `room`, over the root at `root`."""

    def __init__(self, plan: HostPlan, plans: tuple[HostPlan, ...], room: Room, root: Path, shared: Path) -> None:
        self.plan = plan
        self.name = plan.name
        self._plans = plans
        self._room = room
        self._root = root
        self._shared = shared

    # ------------------------------------------------------------------------------------------------------- its life

    def furnish(self) -> None:
        """Make its disk with all that makes it itself; an existing one is kept as it is."""
        disk = self._room.directory / "hosts" / self.name
        self._room.script(
            'mkdir -p "$1/u" "$1/w" "$1/m"; mountpoint -q "$1/m" ||'
            ' mount -t overlay "$2" -o "lowerdir=$3,upperdir=$1/u,workdir=$1/w" "$1/m"',
            *(disk, f"lab-{self.name}", self._root),
        )
        inside = self._inside
        if (inside / "etc/lab-host").exists():
            return
        for path, content in files(self.plan, self._plans).items():
            target = inside / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        wanted, unwanted = units(self.plan)
        root = f"--root={disk}/m"
        self._room.run(["systemctl", root, "enable", *wanted])
        self._room.run(["systemctl", root, "mask", *unwanted])
        (inside / "etc/lab-host").write_text(f"{self.name}\n")

    def start(self) -> None:
        """Turn the power on and return at once; it ends with the room. Raises ConfigurationError when it is on."""
        if self.is_on:
            raise ConfigurationError(f"{self.name} is on already")
        self._room.script(_WIRE, self.name, self.plan.address, self.plan.mac, BRIDGE, SWITCH)
        disk = self._room.directory / "hosts" / self.name
        nspawn = [
            *(
                "nsenter",
                f"--net=/run/netns/{self.name}",
                "systemd-nspawn",
                "--quiet",
                f"--directory={disk}/m",
                "--boot",
                "--register=no",
                "--keep-unit",
            ),
            *(f"--machine={self.name}", f"--hostname={self.name}"),
            *("--capability=all", "--console=pipe", "--resolv-conf=off", "--timezone=off", "--bind=/dev/net/tun"),
            *(f"--bind-ro={self._shared}:/var/lib/lochness/images", "systemd.show_status=0"),
        ]
        enter = self._room.enter(ends_with_us=False)
        nsenter = start(
            [*enter, "sh", "-e", "-c", _BOOT, "boot", f"{self._room.group}/{self.name}", *nspawn], self._file("console")
        )
        self._file("pid").write_text(f"{nsenter.pid} {began_at(nsenter.pid)}\n")

    def wait_until_up(self, limit_s: float = BOOT_LIMIT_S) -> None:
        """Return when systemd has started everything. Raises UnavailableError when it does not boot, DeadlineError."""

        def is_up() -> bool:
            if not self.is_on:
                raise UnavailableError(f"{self.name} did not boot: {self.console_tail()}")
            if not self.leader:
                return False
            return self.run("systemctl", "is-system-running", is_checked=False).stdout.strip() in _UP

        try:
            wait_until(is_up, limit_s=limit_s, what=f"end of the boot of {self.name}")
        except DeadlineError as error:
            jobs = self.run("systemctl", "list-jobs", "--no-pager", is_checked=False).stdout.strip()
            raise DeadlineError(f"{error.message}: {jobs}\n{self.console_tail()}") from error

    def cut_power(self) -> None:
        """The host and all in it are gone within an instant, without a word. Off already is fine."""
        self._unplug()
        if leader := self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGKILL)
        self._wait_until_off()

    def remove(self) -> None:
        """Cut its power and throw its disk away. Fine when it never was."""
        self.cut_power()
        disk = self._room.directory / "hosts" / self.name
        self._room.script('umount "$1/m" 2>/dev/null || true; rm -rf "$1"', disk)

    def shut_down(self, limit_s: float = OFF_LIMIT_S) -> None:
        """As by its power button. Off already is fine. Raises DeadlineError."""
        if leader := self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGRTMIN + 4)  # systemd's "power off"
        self._wait_until_off(limit_s)
        self._unplug()

    # ------------------------------------------------------------------------------------------------------ what it is

    @property
    def is_on(self) -> bool:
        return bool(self._nsenter)

    @property
    def leader(self) -> int:
        """The pid of its systemd as the real machine numbers it; 0 while it has none."""
        nspawn = _children(self._nsenter) if self._nsenter else []
        for pid in nspawn:
            for child in _children(pid):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return child
        return 0

    def console_tail(self, lines: int = 15) -> str:
        """The end of what it wrote to its console."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self._file("console").read_text(errors="replace").splitlines()[-lines:])
        return ""

    # ------------------------------------------------------------------------------------------------------ inside it

    def enter(self, *, ends_with_us: bool = True) -> list[str]:
        """What goes in front of a command that is to run in the host. Raises UnavailableError while it is off."""
        if not (leader := self.leader):
            raise UnavailableError(f"{self.name} is off")
        nsenter = ["nsenter", "--target", str(leader), *("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")]
        return [*(die_with_us() if ends_with_us else ()), *nsenter, *_ENVIRONMENT]

    def run(self, *argv: str, limit_s: float = 60, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end. Raises UnavailableError when it fails or the host is off."""
        return run([*self.enter(), *argv], limit_s=limit_s, is_checked=is_checked)

    def signal(self, number: signal.Signals, unit: str) -> None:
        """Send a signal to a unit's main process."""
        self.run("systemctl", "kill", f"--signal={number.name}", "--kill-who=main", unit)

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """Properties of a unit as `systemctl show` has them."""
        words = [f"--property={item}" for item in properties]
        lines = self.run("systemctl", "show", name, *words).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The journal's entries for `journalctl` with these options and matches, oldest first."""
        lines = self.run("journalctl", "--output=json", "--no-pager", *matches).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def domains(self) -> dict[str, str]:
        """The domains that its libvirt has: UUID and state."""
        found = {}
        for uuid in self.run("virsh", "list", "--all", "--uuid").stdout.split():
            state = self.run("virsh", "domstate", uuid, is_checked=False)
            if state.returncode == 0:  # else it has gone since
                found[uuid] = state.stdout.strip()
        return found

    @property
    def files(self) -> Path:
        """Its file system as this machine sees it, power or no power."""
        return self._inside

    # -------------------------------------------------------------------------------------------------------- its parts

    @property
    def _inside(self) -> Path:
        return self._room.root / str(self._room.directory / "hosts" / self.name / "m").lstrip("/")

    def _file(self, kind: str) -> Path:
        return self._room.directory / f"{self.name}.{kind}"

    @property
    def _nsenter(self) -> int:
        reap()
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid, began = self._file("pid").read_text().split()
            if began_at(int(pid)) == began and process_state(int(pid)) not in ("", "Z"):
                return int(pid)
        return 0

    def _unplug(self) -> None:
        self._room.run(["ip", "link", "set", f"v-{self.name}", "down"], is_checked=False)

    def _wait_until_off(self, limit_s: float = OFF_LIMIT_S) -> None:
        wait_until(lambda: not self.is_on, limit_s=limit_s, what=f"end of {self.name}")


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (thread / "children").read_text().split())
