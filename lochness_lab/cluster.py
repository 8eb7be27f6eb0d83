"""How does one get a whole Loch Ness on this machine: etcd, controller, one hypervisor with its four daemons?

What it stands on is a subclass's to say (cluster_kinds.py); what it can be asked is in cluster_access.py.

1. All that runs are processes of Loch Ness's own commands, configured by flags and a node.toml as an operator would.
2. start() returns when each of them has said READY. When one does not, what was started is stopped before the error is
   raised, and the error ends with that one's log. launch() returns as soon as the controller can be talked to.
3. stop() leaves no process, mount or namespace. Files stay below `directory`; they are the caller's.
"""

from __future__ import annotations

import contextlib
import json
import signal
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from lochness_lab.cluster_access import ClusterAccess
from lochness_lab.processes import Process
from lochness_lab.readiness import Readiness

READY_LIMIT_S = 60.0
_CONTROLLER = "lochness_controller.main"

Tell = Callable[[str], None]


class Cluster(ClusterAccess):
    """A cluster of one hypervisor, `hypervisor_id`, its files below `directory`. Use a subclass.

    `tell` gets a line for each part that is started.
    """

    #: Whether guests really run, and answer on `bridge`.
    has_real_guests: ClassVar[bool]
    bridge: ClassVar[str] = "demo0"
    bridge_address: ClassVar[str] = "10.44.0.1/24"
    libvirt_uri: ClassVar[str]
    daemons: ClassVar[tuple[str, ...]]
    node_module: ClassVar[str] = "lochness_node.main"

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


def _toml(table: str, values: Mapping[str, object]) -> str:
    """A table of TOML; JSON's strings, numbers and lists of them are TOML's too."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join([f"[{table}]"] * bool(table) + lines) + "\n"
