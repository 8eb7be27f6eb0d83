"""How does one get a whole Loch Ness on this machine: etcd, controller, one hypervisor with its four daemons?

    with QemuCluster(directory) as cluster:     real guests, everything in one machine of namespaces
    with DriverCluster(directory) as cluster:   libvirt's test driver, free ports of loopback, any user

1. All that runs are processes of Loch Ness's own commands, configured by flags and a node.toml as an operator would.
2. start() returns when each of them has said READY. When one does not, what was started is stopped before the error is
   raised, and the error ends with that one's log. launch() returns as soon as the controller can be talked to.
3. stop() leaves no process, mount or namespace. Files stay below `directory`; they are the caller's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import lochness
from lochness import keys
from lochness.errors import DeadlineError, UnavailableError
from lochness_lab.etcd import EtcdServer, free_ports
from lochness_lab.guest_image import default_cache
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.processes import Process, run
from lochness_lab.readiness import Readiness

READY_LIMIT_S = 60.0
CLI_LIMIT_S = 120.0
#: What a caller's shell may hold that would configure our processes.
_FOREIGN = ("LOCHNESS_", "HYPERVISOR_ID", "NOTIFY_SOCKET", "WATCHDOG_", "INVOCATION_ID", "JOURNAL_STREAM")
_CONTROLLER = "lochness_controller.main"
_CLI = "lochness.cli.main"

Tell = Callable[[str], None]


class Cluster(ABC):
    """A cluster of one hypervisor, `hypervisor_id`, its files below `directory`. Use a subclass.

    `server` is the controller's URL and `agent_url` the agent's, as processes of the cluster see them. `tell` gets a
    line for each part that is started.
    """

    #: Whether guests really run, and answer on `bridge`.
    has_real_guests: ClassVar[bool]
    bridge: ClassVar[str] = "demo0"
    bridge_address: ClassVar[str] = "10.44.0.1/24"
    libvirt_uri: ClassVar[str]
    daemons: ClassVar[tuple[str, ...]]
    node_module: ClassVar[str] = "lochness_node.main"

    server: str
    agent_url: str

    def __init__(self, directory: Path, *, tell: Tell = lambda _: None) -> None:
        self.directory = directory
        self.hypervisor_id = str(uuid.uuid4())
        self.guest_dir = directory / "guests"
        self.source_dir = directory / "images"
        self.parts: dict[str, Process] = {}
        #: What the controller is told beside where etcd is and where to listen (controller.toml); set before the start.
        self.controller_settings: Mapping[str, float] = {}
        self._tell = tell
        self._readiness: dict[str, Readiness] = {}
        self._commands: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # ----------------------------------------------------------------------------------------- what a subclass decides

    @property
    @abstractmethod
    def etcd(self) -> EtcdServer:
        """The store it stands on."""

    @property
    def etcd_urls(self) -> str:
        """What the processes of the cluster are told: the URLs of etcd's members."""
        return self.etcd.url

    def _image_sources(self) -> list[Path]:
        """Where the agent takes file:// images from."""
        return [self.source_dir]

    @abstractmethod
    def _open(self) -> None:
        """Start what Loch Ness stands on: the place, etcd, libvirt."""

    @abstractmethod
    def _close(self) -> None:
        """The reverse, from any half-way state."""

    @abstractmethod
    def _start(self, argv: Sequence[str], name: str, env: Mapping[str, str]) -> Process:
        """Start a process where the cluster is."""

    @abstractmethod
    def _enter(self) -> list[str]:
        """The command in front of one that is to run where the cluster is."""

    # ------------------------------------------------------------------------------------------------------- its life

    def start(self) -> None:
        """Start everything. Raises ConfigurationError, UnavailableError or DeadlineError."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start everything, and wait for the controller only. Raises as `start`."""
        with self._stopped_on_failure():
            self.source_dir.mkdir(parents=True, exist_ok=True)
            self._open()
            self._tell(f"controller on {self.server}; {', '.join(self.daemons)} of hypervisor {self.hypervisor_id}")
            self._start_services()
            self._wait_for("controller")

    def wait_until_ready(self) -> None:
        """Wait for all that `launch` has started. Raises as `start`."""
        with self._stopped_on_failure():
            for name in self.parts:
                self._wait_for(name)

    @contextlib.contextmanager
    def _stopped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def _wait_for(self, name: str) -> None:
        self._readiness[name].wait(self.parts[name], READY_LIMIT_S)

    def _start_services(self) -> None:
        """All at once: each takes a second of processor time to start, most of it the same for all."""
        config = self._write_node_config()
        listen = self.server.removeprefix("http://")
        settings = self.directory / "controller.toml"
        settings.write_text("".join(f"{name} = {value}\n" for name, value in self.controller_settings.items()))
        controller = [_CONTROLLER, "--config", str(settings), "--etcd", self.etcd_urls, "--listen", listen]
        commands = {"controller": controller}
        commands |= {name: [self.node_module, name, "--config", str(config)] for name in self.daemons}
        for name, words in commands.items():
            self._commands[name] = words
            self._start_service(name)

    def _start_service(self, name: str) -> None:
        readiness = Readiness(self.directory / f"{name}.ready")
        self._readiness[name] = readiness
        words = self.python(*self._commands[name])
        self.parts[name] = self._start(words, name, self.environment(readiness.environment))

    def restart(self, name: str) -> None:
        """Stop a part by SIGTERM, start it again and wait for it. Raises UnavailableError or DeadlineError."""
        self.parts[name].stop()
        self._readiness[name].close()
        self._start_service(name)
        self._wait_for(name)

    def _write_node_config(self) -> Path:
        shared = {
            "id": self.hypervisor_id,
            "etcd": self.etcd_urls,
            "libvirt": self.libvirt_uri,
            "guest_dir": str(self.guest_dir),
            "lock_dir": str(self.directory / "locks"),
            "metrics_listen": "off",  # the ports may be a real node's
        }
        agent = {
            "listen": self.agent_url.removeprefix("http://"),
            "state_dir": str(self.directory / "agent"),
            "image_dir": str(self.directory / "cache"),
            "image_source_dirs": [str(path) for path in self._image_sources()],
        }
        # Small: the demo is to run on small machines, and one guest of 96 MB is all it starts.
        resources = {"reserve_memory_mb": 128, "reserve_disk_mb": 128}
        path = self.directory / "node.toml"
        tables: dict[str, dict[str, Any]] = {"": shared, "agent": agent, "resources": resources}
        path.write_text("\n".join(_toml(name, values) for name, values in tables.items()))
        return path

    def stop(self) -> None:
        """Stop everything; guests end too. Fine when it is stopped already or was never quite started."""
        for process in self.parts.values():
            process.signal(signal.SIGTERM)
        for process in reversed(self.parts.values()):
            process.stop()
        self.parts.clear()
        for readiness in self._readiness.values():
            readiness.close()
        self._readiness.clear()
        self._close()

    def failing_part(self) -> Process | None:
        """A part that has ended by itself."""
        return next((process for process in self.parts.values() if not process.is_running), None)

    # ----------------------------------------------------------------------------------------------------- its users

    @staticmethod
    def python(module: str, *words: str) -> list[str]:
        """The command line of a module of this checkout or installation."""
        return [sys.executable, "-m", module, *words]

    @staticmethod
    def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Our environment without what would configure the cluster's processes by accident."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        root = str(Path(lochness.__path__[0]).resolve().parent)
        clean["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [clean.get("PYTHONPATH")])])
        return clean | dict(more or {})

    def cli_command(self, *words: str) -> list[str]:
        """The command line that runs `lochness` where it reaches the controller."""
        return [*self._enter(), *self.python(_CLI, "--server", self.server, *words)]

    def cli(self, *words: str, limit_s: float = CLI_LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run `lochness` to its end, whatever that is. Raises DeadlineError."""
        return self._run(self.cli_command(*words), limit_s)

    def records(self, *words: str, limit_s: float = CLI_LIMIT_S) -> list[dict[str, Any]]:
        """Run `lochness -j` and answer the objects it printed. Raises UnavailableError when it fails, DeadlineError."""
        done = self.cli(*words, "-j", limit_s=limit_s)
        if done.returncode != 0:
            raise UnavailableError(f"lochness {' '.join(words)}: status {done.returncode}: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def record(self, *words: str) -> dict[str, Any]:
        """As `records` for exactly one."""
        (found,) = self.records(*words)
        return found

    def keys(self) -> dict[str, str]:
        """All keys of Loch Ness in the store, with their values."""
        done = self._run([*self._enter(), *self.python("lochness_lab.keyspace", self.etcd_urls)], CLI_LIMIT_S)
        if done.returncode != 0:
            raise UnavailableError(f"the keys cannot be read: {done.stderr.strip()}")
        return {item["key"]: item["value"] for item in map(json.loads, done.stdout.splitlines())}

    def etcd_status(self) -> dict[str, Any]:
        """What etcd says of itself: `dbSizeInUse` in bytes, as text, and more. Raises UnavailableError."""
        words = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], b'{}', timeout=5).read().decode())"
        url = f"{self.etcd.url}/v3/maintenance/status"
        done = self._run([*self._enter(), sys.executable, "-c", words, url], CLI_LIMIT_S)
        if done.returncode != 0:
            raise UnavailableError(f"etcd does not tell its status: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pings(self, address: str, limit_s: float = 5) -> bool:
        """Whether `address` answers a ping within `limit_s`."""
        words = ["ping", "-n", "-q", "-c", "1", "-W", str(max(1, int(limit_s))), address]
        return self._run([*self._enter(), *words], limit_s + 5).returncode == 0

    def console(self, guest_id: str) -> str:
        """What the guest has written to its console so far."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return (self.guest_dir / guest_id / "console.log").read_text(errors="replace")
        return ""

    def left_of(self, guest_id: str) -> list[str]:
        """What is there of a guest: keys, files, domains. Empty after a delete.

        But for its jobs, and the answers that are kept for those who ask once more: they tell what was.
        """
        history = ("lochness/jobs/", keys.REQUEST_PATH)
        found = [
            f"key {key}"
            for key, value in self.keys().items()
            if guest_id in key + value and not key.startswith(history)
        ]
        found += [f"file {path}" for path in self.guest_dir.rglob("*") if guest_id in str(path)]
        return found + [f"domain {domain}" for domain in self.domains() if domain == guest_id]

    def domains(self) -> list[str]:
        """The UUIDs of the domains that libvirt has."""
        words = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=5).read().decode())"
        done = self._run([*self._enter(), sys.executable, "-c", words, f"{self.agent_url}/guests"], CLI_LIMIT_S)
        if done.returncode != 0:
            raise UnavailableError(f"the agent does not list its guests: {done.stderr.strip()}")
        return [guest["id"] for guest in json.loads(done.stdout) or []]

    def write_wrapper(self) -> Path:
        """A script that runs `lochness` against this cluster from any terminal of this machine."""
        path = self.directory / "lochness"
        python_path = shlex.quote(self.environment()["PYTHONPATH"])
        command = shlex.join(self.cli_command())
        path.write_text(f'#!/bin/sh\nPYTHONPATH={python_path} exec {command} "$@"\n')
        path.chmod(0o755)
        return path

    def _run(self, argv: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
        try:
            return run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                timeout=limit_s,
                env=self.environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"{' '.join(argv)} took over {limit_s:g} s") from error


class QemuCluster(Cluster):
    """Real guests on a libvirtd, in a machine of namespaces with every service on its default port. Needs root."""

    has_real_guests = True
    libvirt_uri = Libvirtd.uri_inside
    daemons = ("heartbeat", "resources", "guestwatch", "agent")
    server = "http://127.0.0.1:17000"
    agent_url = "http://127.0.0.1:8080"

    def __init__(self, directory: Path, *, tell: Tell = lambda _: None) -> None:
        super().__init__(directory, tell=tell)
        self.machine = Machine(directory / "machine", "demo-hv")
        self.libvirtd = Libvirtd(self.machine)
        self._etcd = EtcdServer(directory / "etcd", machine=self.machine)

    @staticmethod
    def available() -> str | None:
        """Why it cannot be had here, None when it can."""
        return Libvirtd.available()

    @property
    def etcd(self) -> EtcdServer:
        return self._etcd

    def _image_sources(self) -> list[Path]:
        return [self.source_dir, default_cache()]

    def _open(self) -> None:
        self._tell("a machine of its own: private processes, network and mounts; nothing of it is seen outside")
        self.machine.power_on()
        self.machine.bridge(self.bridge, self.bridge_address)
        self._tell(f"etcd {'.'.join(map(str, self._etcd.version))} on {self._etcd.url}")
        self._etcd.start()
        self._tell(f"libvirtd, for guests on the bridge {self.bridge} ({self.bridge_address})")
        self.libvirtd.start()

    def _close(self) -> None:
        self.libvirtd.stop()
        self._etcd.stop()
        self._etcd.remove_data()
        self.machine.power_off()

    def _start(self, argv: Sequence[str], name: str, env: Mapping[str, str]) -> Process:
        return self.machine.start(argv, name=name, log=self.directory / f"{name}.log", env=env)

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.machine.pid), "--mount", "--net", "--uts", "--wdns=/"]

    def domains(self) -> list[str]:
        return self.libvirtd.virsh("list", "--all", "--uuid").stdout.split()


class DriverCluster(Cluster):
    """Libvirt's test driver: the same chain with guests that only libvirt believes in. Any user, no privileges.

    The driver's domains belong to one process, so the four daemons are one.
    """

    has_real_guests = False
    libvirt_uri = "test:///default"
    daemons = ("all",)
    node_module = "lochness_lab.driver_node"

    def __init__(self, directory: Path, *, tell: Tell = lambda _: None) -> None:
        super().__init__(directory, tell=tell)
        controller, agent = free_ports(2)
        self.server = f"http://127.0.0.1:{controller}"
        self.agent_url = f"http://127.0.0.1:{agent}"
        self._etcd = EtcdServer(directory / "etcd")

    @property
    def etcd(self) -> EtcdServer:
        return self._etcd

    def _open(self) -> None:
        self._tell(f"etcd {'.'.join(map(str, self._etcd.version))} on a free port of loopback")
        self._etcd.start()

    def _close(self) -> None:
        self._etcd.stop()
        self._etcd.remove_data()

    def _start(self, argv: Sequence[str], name: str, env: Mapping[str, str]) -> Process:
        return Process.start(argv, name=name, log=self.directory / f"{name}.log", env=env)

    def _enter(self) -> list[str]:
        return []


def _toml(table: str, values: Mapping[str, object]) -> str:
    """A table of TOML; JSON's strings, numbers and lists of them are TOML's too."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join([f"[{table}]"] * bool(table) + lines) + "\n"
