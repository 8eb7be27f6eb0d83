"""Where do the hosts live? In a room of namespaces that outlives the command that made it, and takes all along.

1. The room's mounts, processes and networks end with its pid 1, and that with its keeper, however it ends.
2. Anybody of this user finds the room by its directory: keeper.pid and room.pid, with the time each process began, so
   that a pid that was used again is not taken for ours.
3. Inside, /run is empty and the room's own: programs leave no trace in the real one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lochness.errors import UnavailableError
from lochness_lab.hosts.commands import reap, run, start
from lochness_lab.machine import NAMESPACES, Machine
from lochness_lab.processes import DIE_WITH_PARENT, die_with_us, process_state
from lochness_lab.waiting import wait_until

START_LIMIT_S: Final = 20.0
END_LIMIT_S: Final = 20.0
_FURNISH: Final = """
set -e
umount /sys                       # the real one with its cgroups, below the machine's
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
# overlayfs keeps no writable layer on an overlay: there the hosts' files are kept in memory.
if [ "$(stat -f -c %T "$1")" = overlayfs ]; then mount -t tmpfs -o mode=755 tmpfs "$1"; fi
"""


class Room:
    """The room of `directory`. Its `hosts` directory holds what the hosts write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        #: Below which the hosts' cgroups are, the one thing that they have in the real machine.
        self.group = f"lochness-lab-{hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]}"

    def open(self, *, ends_with_us: bool) -> None:
        """Make the room. With `ends_with_us` it ends when the calling thread does, else only by close().

        Raises UnavailableError when it is open already or cannot be made, DeadlineError.
        """
        if self.is_open:
            raise UnavailableError(f"the laboratory in {self.directory} is up already")
        self._forget()
        (self.directory / "hosts").mkdir(parents=True, exist_ok=True)
        log = self.directory / "keeper.log"
        argv = [sys.executable, "-m", "lochness_lab.hosts.keeper", str(self.directory)]
        log.unlink(missing_ok=True)
        # The keeper is told of our end and not killed: the hosts' cgroups outlive them, and are its to remove.
        dies = die_with_us(signal.SIGTERM) if ends_with_us else ()
        keeper = start([*dies, *argv], log, cwd=Path(__file__).parents[2])
        try:
            wait_until(
                lambda: self.is_open or keeper.poll() is not None, limit_s=START_LIMIT_S, what="room for the hosts"
            )
            if not self.is_open:
                raise UnavailableError(f"no room for the hosts: {log.read_text(errors='replace').strip()}")
            self.script(_FURNISH, self.directory / "hosts")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything in the room, at once. Fine when there is none."""
        keeper = self._living("keeper")
        if keeper:
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGTERM)
            wait_until(
                lambda: not self._living("keeper") and not self._living("room"),
                limit_s=2 * END_LIMIT_S,
                what="end of the room",
            )
        room = self._living("room")
        if room:
            with contextlib.suppress(ProcessLookupError):
                os.kill(room, signal.SIGKILL)
        reap()
        self.remove_groups()
        self._forget()

    @property
    def is_open(self) -> bool:
        return bool(self._living("room"))

    @property
    def pid(self) -> int:
        """The room's pid 1 as the real machine numbers it. Raises UnavailableError while there is none."""
        pid = self._living("room")
        if not pid:
            raise UnavailableError(f"the laboratory in {self.directory} is not up")
        return pid

    @property
    def root(self) -> Path:
        """The file system as the room sees it."""
        return Path(f"/proc/{self.pid}/root")

    def enter(self, *, ends_with_us: bool = True) -> list[str]:
        """What goes in front of a command that is to run in the room; it ends when our thread does, unless told."""
        nsenter = ["nsenter", "--target", str(self.pid), *NAMESPACES, "--wdns=/"]
        return [*die_with_us(), *nsenter, *DIE_WITH_PARENT] if ends_with_us else nsenter

    def run(
        self, argv: Sequence[str | Path], *, limit_s: float = 60, is_checked: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the room to its end. Raises UnavailableError when it fails, DeadlineError."""
        command = [*self.enter(), *map(str, argv)]
        return run(command, limit_s=limit_s, is_checked=is_checked)

    def script(self, text: str, *words: str | Path, limit_s: float = 60) -> str:
        """Run a shell script, `words` its arguments, ending at the first failure; answers its output."""
        return self.run(["sh", "-e", "-c", text, "room", *words], limit_s=limit_s).stdout

    def remove_groups(self) -> None:
        """Remove the hosts' cgroups when the room has ended: the last process is reaped a moment after its end.

        Raises DeadlineError.
        """

        def are_gone() -> bool:
            trees = Path("/sys/fs/cgroup")
            left = [*trees.glob(f"*/{self.group}"), *trees.glob(self.group)]
            for top in left:
                for path in sorted(top.rglob("*/"), key=lambda path: -len(path.parts)):
                    with contextlib.suppress(OSError):
                        path.rmdir()
                with contextlib.suppress(OSError):
                    top.rmdir()
            return not any(path.exists() for path in left)

        wait_until(are_gone, limit_s=END_LIMIT_S, what=f"end of the processes in the cgroup {self.group}")

    def _living(self, what: str) -> int:
        """The pid in the file `what`.pid, 0 when that process is gone."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid, began = (self.directory / f"{what}.pid").read_text().split()
            if began_at(int(pid)) == began and process_state(int(pid)) != "Z":
                return int(pid)
        return 0

    def _forget(self) -> None:
        for what in ("keeper", "room"):
            (self.directory / f"{what}.pid").unlink(missing_ok=True)


def began_at(pid: int) -> str:
    """When a process began, in the kernel's ticks since the boot; "" when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]
    return ""


def keep(directory: Path) -> None:
    """The keeper's whole life: hold the room open until SIGTERM or its end; no cgroup of the hosts is left."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end the cleaning up
        sys.exit(0)

    machine = Machine(directory / "room", "lochness-lab")
    signal.signal(signal.SIGTERM, end)
    _write(directory / "keeper.pid", os.getpid())
    try:
        with machine:
            _write(directory / "room.pid", machine.pid)
            machine.wait()
    finally:
        Room(directory).remove_groups()


def _write(path: Path, pid: int) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(f"{pid} {began_at(pid)}\n")
    aside.replace(path)
