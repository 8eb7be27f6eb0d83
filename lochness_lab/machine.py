"""What is a machine of our own, made of nothing but namespaces?

1. It has its own mounts, pids, network, host name and System V objects; the file system below is the real one.
2. Its pid 1 reaps at once. A pid 1 that is slow at that costs seconds at every end of a QEMU.
3. Ending pid 1 is a power cut: every process in it, its namespaces and its mounts are gone. The kernel does the same
   when our own process ends in any way.
4. Nothing of it is reachable from the network of the real machine; files and unix sockets are.

It does not limit memory, processors or what root inside can do to the files it sees.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lochness.errors import ConfigurationError, DeadlineError, UnavailableError
from lochness_lab.processes import DIE_WITH_PARENT, SBIN, Process, child, die_with_us, find_program, kill_with_child

WAIT_ROUND_S = 3600.0
NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc")
#: util-linux and iproute2 are what a machine is made with.
PROGRAMS = ("unshare", "nsenter", "setpriv", "mount", "ip")

# A fresh /sys shows the network devices of the new namespace. Standard input ends with our process: that covers even an
# end before the kernel was told to kill pid 1 with us. The loop is the reaper: `wait` takes every orphan, and returns
# early only when no child is left.
INIT = """
set -e
trap 'exit 0' TERM
exec 3<&0
echo "$1" > /proc/sys/kernel/hostname
mount -t sysfs sysfs /sys
ip link set lo up
echo up
{ read -r _ || kill 1; } <&3 &
exec 3<&-
while :; do wait; sleep 1; done
"""


class Machine:
    """A machine with its files below `directory` (made when missing) and host name `name`. Needs root.

    A context manager, or power_on() and power_off().
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self._init: Process | None = None

    @staticmethod
    def available() -> str | None:
        """Why a machine cannot be made here, None when it can."""
        if os.geteuid() != 0:
            return "namespaces, bridges and mounts need root"
        missing = [program for program in PROGRAMS if find_program(program) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        argv = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "true"]
        trial = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)
        return None if trial.returncode == 0 else f"the kernel refuses namespaces: {trial.stderr.strip()}"

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.power_off()

    def power_on(self) -> None:
        """Make the namespaces and start pid 1. Raises ConfigurationError when they are refused."""
        if self._init is not None:
            raise ConfigurationError(f"machine {self.name} is on already")
        log = self.directory / "init.log"
        log.unlink(missing_ok=True)
        init = Process.start(
            ["sh", "-c", INIT, "init", self.name],
            name=f"machine {self.name}",
            log=log,
            env=self._environment(None),
            enter=["unshare", *NAMESPACES, "--fork", "--kill-child=KILL", "--mount-proc"],
            holds_stdin=True,
        )
        try:
            init.wait_until(lambda: log.read_text().endswith("up\n"), limit_s=10, what=f"pid 1 of machine {self.name}")
        except (UnavailableError, DeadlineError) as error:
            init.kill()
            raise ConfigurationError(f"machine {self.name} cannot be made: {error.message}") from error
        except BaseException:
            init.kill()
            raise
        self._init = init

    def power_off(self) -> None:
        """Cut the power: nothing that runs in the machine survives, nor gets a word of warning. Off already is fine."""
        if self._init is not None:
            self._init.kill()
            self._init = None

    def wait(self) -> None:
        """Return when the machine is off, for whatever reason."""
        while self._init is not None and self._init.is_running:
            with contextlib.suppress(DeadlineError):
                self._init.wait(WAIT_ROUND_S)

    @property
    def is_on(self) -> bool:
        return self._init is not None and self._init.is_running

    @property
    def pid(self) -> int:
        """The machine's pid 1 as the real machine numbers it. Raises UnavailableError while it is off."""
        if self._init is None or not self._init.is_running:
            raise UnavailableError(f"machine {self.name} is off")
        return self._init.pid

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path = Path("/"),
    ) -> Process:
        """Start a process inside. Its log is `log`, else NAME.log in the machine's directory. See Process.start."""
        name = name or Path(argv[0]).name
        return Process.start(
            argv,
            name=f"{name} on {self.name}",
            log=log or self.directory / f"{name}.log",
            env=self._environment(env),
            enter=self._enter(cwd),
        )

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float = 30,
        env: Mapping[str, str] | None = None,
        cwd: Path = Path("/"),
        is_checked: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end and return its output.

        Raises UnavailableError when it fails, unless `is_checked` is false; DeadlineError after `timeout_s` seconds.
        """
        command = [*die_with_us(), *self._enter(cwd), *DIE_WITH_PARENT, *map(str, argv)]
        title = f"{' '.join(map(str, argv))} on {self.name}"
        with child(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(env),
        ) as nsenter:
            try:
                output, complaint = nsenter.communicate(timeout=timeout_s)
            except BaseException as error:
                kill_with_child(nsenter)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise DeadlineError(f"{title} took over {timeout_s:g} s") from error
                raise
        if is_checked and nsenter.returncode != 0:
            raise UnavailableError(f"{title}: status {nsenter.returncode}: {(complaint or output).strip()}")
        return subprocess.CompletedProcess(list(map(str, argv)), nsenter.returncode, output, complaint)

    def bind(self, source: Path, target: Path) -> None:
        """Show the directory `source` (made when missing) at `target`, in this machine only."""
        source.mkdir(parents=True, exist_ok=True)
        self.run(["mkdir", "-p", target])
        self.run(["mount", "--bind", source, target])

    def bridge(self, name: str, cidr: str) -> None:
        """Make a bridge with the address and prefix `cidr` ("10.0.0.1/24"), IPv4 or IPv6, up and forwarding at once."""
        address = ipaddress.ip_interface(cidr)
        # A bridge without a MAC of its own takes the lowest of its ports, and changes it when a guest comes.
        mac = "02:00:" + ":".join(f"{byte:02x}" for byte in address.packed[-4:])
        self.run(["ip", "link", "add", name, "address", mac, "type", "bridge", "forward_delay", "0", "stp_state", "0"])
        self.run(["ip", "address", "add", str(address), "dev", name, *(["nodad"] if address.version == 6 else [])])
        self.run(["ip", "link", "set", name, "up"])

    def pids(self) -> list[int]:
        """Every process in the machine as the real machine numbers them, pid 1 first."""
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        return pids_in_namespace(namespace)

    def signal_pid_1(self, number: signal.Signals) -> None:
        """Send a signal to the machine's pid 1, SIGSTOP for example. Use power_off() to end the machine."""
        os.kill(self.pid, number)

    def _enter(self, cwd: Path) -> list[str]:
        return ["nsenter", "--target", str(self.pid), *NAMESPACES, f"--wdns={cwd}"]

    @staticmethod
    def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
        """`env`, by default our own, with root's directories on PATH."""
        environment = dict(os.environ if env is None else env)
        path = environment.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(os.pathsep)
        environment["PATH"] = os.pathsep.join([*path, *(d for d in SBIN if d not in path)])
        return environment


def pids_in_namespace(namespace: str) -> list[int]:
    """The pids of all processes whose /proc/PID/ns/pid reads `namespace` ("pid:[4026532245]")."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns/pid") == namespace:
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended while we looked, or is none of ours
    return sorted(found)
