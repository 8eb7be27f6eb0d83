"""How does one get a libvirtd of one's own, beside the real machine's and blind to it?

1. It runs inside a machine, whose /etc/libvirt, /var/lib/libvirt, /var/cache/libvirt, /var/log and /run are directories
   of its own. The real machine's libvirt, its guests and its files are not even visible to it.
2. It uses no cgroups, no security labels and no virtlogd, so it needs nothing of systemd.
3. Its guests are children of the machine's pid 1: stop() and kill() leave them running, Machine.power_off() does not.
4. start() returns when it answers a call over its socket.

/run is private, so what another process of the machine puts there is seen inside the machine only, and outside below
`directory`/run.
"""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

from lochness.errors import ConfigurationError, DeadlineError, UnavailableError
from lochness_lab.machine import Machine
from lochness_lab.processes import find_program, require_program, run
from lochness_lab.server import Server

START_LIMIT_S = 20.0
#: sockaddr_un.sun_path, its final zero byte included.
SOCKET_PATH_BYTES = 108

PRIVATE = {
    "etc": Path("/etc/libvirt"),
    "lib": Path("/var/lib/libvirt"),
    "cache": Path("/var/cache/libvirt"),
    "log": Path("/var/log"),
    "run": Path("/run"),
}

LIBVIRTD_CONF = """\
host_uuid = "{host_uuid}"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
log_outputs = "2:stderr"
"""

# Files belong to whoever made them, processes to root: nothing here is shared with a stranger.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""


class Libvirtd(Server):
    """The libvirtd of `machine`, its files below the machine's directory.

    A context manager, or start() and stop(). Guests go on when it ends.
    `host_uuid` is the host's identity towards libvirt, a new one by default.
    """

    #: For processes inside the machine.
    uri_inside = "qemu:///system"

    def __init__(self, machine: Machine, *, host_uuid: str = "") -> None:
        super().__init__()
        self.machine = machine
        self.what = f"libvirtd on {machine.name}"
        self.directory = machine.directory / "libvirt"
        self.host_uuid = host_uuid or str(uuid.uuid4())
        self._bound_pid = 0  # pid 1 of the machine that has our directories; another one after a power cycle
        if len(bytes(self.socket)) >= SOCKET_PATH_BYTES:
            raise ConfigurationError(f"{self.socket} is too long for a socket: {SOCKET_PATH_BYTES - 1} bytes at most")

    @staticmethod
    def available() -> str | None:
        """Why no libvirtd with QEMU guests can be had here, None when it can."""
        wanted = ("libvirtd", "virsh", "qemu-system-x86_64", "qemu-img")
        missing = [program for program in wanted if find_program(program) is None]
        return Machine.available() or (f"not installed: {', '.join(missing)}" if missing else None)

    @property
    def socket(self) -> Path:
        """Its socket as seen from outside the machine."""
        return self.directory / "run" / "libvirt" / "libvirt-sock"

    @property
    def uri_outside(self) -> str:
        """For processes of the real machine."""
        return f"qemu+unix:///system?socket={self.socket}"

    def start(self) -> None:
        """Start it and wait for its answer. Raises UnavailableError or DeadlineError with the end of its log."""
        if self.is_running:
            return
        program = require_program("libvirtd", "libvirt-daemon-system")
        self._prepare()
        # A socket that is left of a killed one would let the first client in and then hang up on it.
        self.socket.unlink(missing_ok=True)
        process = self.machine.start([program, "--listen"], name="libvirtd", log=self.directory / "libvirtd.log")
        try:
            process.wait_until(self._answers, limit_s=START_LIMIT_S, what="answer from libvirtd")
        except BaseException:
            process.kill()
            raise
        self._process = process

    def _prepare(self) -> None:
        for name in PRIVATE:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(host_uuid=self.host_uuid))
        (self.directory / "etc" / "qemu.conf").write_text(QEMU_CONF)
        if self._bound_pid == self.machine.pid:
            return
        for name, target in PRIVATE.items():
            self.machine.bind(self.directory / name, target)
        self._bound_pid = self.machine.pid

    def _answers(self) -> bool:
        return self.socket.exists() and self.virsh("version", is_checked=False).returncode == 0

    def virsh(self, *words: str, timeout_s: float = 30, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        """Run virsh from outside the machine. Raises as Machine.run does."""
        argv = [require_program("virsh", "libvirt-clients"), "--quiet", "--connect", self.uri_outside, *words]
        try:
            done = run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"virsh {' '.join(words)} took over {timeout_s:g} s") from error
        if is_checked and done.returncode != 0:
            raise UnavailableError(f"virsh {' '.join(words)}: status {done.returncode}: {done.stderr.strip()}")
        return done
