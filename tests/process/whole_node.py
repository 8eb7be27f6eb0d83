"""All daemons of a node and a controller, each a process of its own, on an etcd and a libvirtd that may be broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx

from lochness import keys
from lochness.errors import LochnessError
from lochness.identity import GuestID
from lochness.model.hypervisor import HeartbeatRecord
from lochness.store.protocol import KeyValue, Prefix
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.waiting import wait_until
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import DomainSpec, DomainState
from tests.process.controller_process import ControllerProcess
from tests.process.node_daemons import Cluster, NodeProcess

DAEMONS: Final = ("heartbeat", "resources", "guestwatch", "agent")
#: Of the heartbeat. Long enough for a busy machine to renew in time, short enough to be waited for.
TTL_S: Final = 6
#: A stuck call, a back-off or a reconnect may come before what is waited for, on a machine that does much else.
LIMIT_S: Final = 60.0

CONFIG = """
etcd_timeout_s = 2.0
[heartbeat]
ttl_s = {ttl_s}
interval_s = 0.5
request_timeout_s = 1.0
allow_short_ttl = true
[resources]
refresh_s = 2.0
[guestwatch]
interval_s = 1.0
starts_max = 1000
[agent]
listen = "127.0.0.1:0"
state_dir = "{state}"
image_dir = "{state}/images"
image_source_dirs = ["{state}/sources"]
"""
CONTROLLER = """
etcd_timeout_s = 2.0
lease_ttl_s = 5
listen = ["127.0.0.1:0"]
"""

T = TypeVar("T")


class WholeNode:
    """Started while etcd may be away. A context manager that ends what it started."""

    def __init__(self, directory: Path, etcd: EtcdServer, libvirtd: Libvirtd) -> None:
        self.directory = directory
        self.etcd = etcd
        self.libvirtd = libvirtd
        self.cluster = Cluster(etcd.url)
        self.daemons: dict[str, NodeProcess] = {}
        (directory / "node.toml").write_text(CONFIG.format(ttl_s=TTL_S, state=directory / "state"))
        (directory / "controller.toml").write_text(CONTROLLER)
        #: A guest that runs; no scenario may harm it.
        self.guest_id = GuestID("")
        self.controller = ControllerProcess(
            directory / "controller", etcd.url, "--config", str(directory / "controller.toml")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.controller.__exit__(kind, error, at)
        for daemon in self.daemons.values():
            daemon.__exit__(kind, error, at)
        self.cluster.store.close()

    def start(self) -> None:
        """Start what does not run, as systemd would; wait for nothing but the controller's address."""
        for name in DAEMONS:
            if name not in self.daemons or not self.daemons[name].process.is_running:
                if name in self.daemons:
                    self.daemons[name].systemd.close()
                libvirt = () if name == "heartbeat" else ("--libvirt", self.libvirtd.uri_outside)
                config = ("--config", str(self.directory / "node.toml"))
                self.daemons[name] = NodeProcess(self.directory, name, *self.cluster.flags, *config, *libvirt)
        if self.controller.process is None or not self.controller.process.is_running:
            self.controller.start()

    def wait_until_ready(self) -> None:
        for daemon in self.daemons.values():
            daemon.wait_until_ready(LIMIT_S)
        self.controller.running.wait_until(
            lambda: "READY=1" in self.controller.notified.messages(), limit_s=LIMIT_S, what="ready controller"
        )

    def pids(self) -> dict[str, int]:
        """Those of the daemons that run."""
        running = {name: daemon.process for name, daemon in self.daemons.items()} | {
            "controller": self.controller.running
        }
        return {name: process.pid for name, process in running.items() if process.is_running}

    def wait_until_true(self) -> None:
        """Each daemon is seen doing its work: what changes now, arrives where it should."""
        cluster = self.cluster
        guest_id, _ = self.wait_for("binding", lambda: cluster.bind("stopped"))
        self.wait_for("status from guestwatch", lambda: cluster.status(guest_id))
        self.wait_for("heartbeat", self._beats)
        self.wait_for("record from resources", self._counts)
        self.wait_for("healthy agent", lambda: self._answers(self.agent_url, "/healthz"))
        self.wait_for("agent that sees libvirt", lambda: self._answers(self.agent_url, "/guests"))
        self.wait_for("ready controller", lambda: self._answers(self.controller.urls[-1], "/readyz"))
        self.wait_for("controller that sees the node", self._shows_node)
        self.wait_for("end of the binding", lambda: self._unbinds(guest_id))

    def _unbinds(self, guest_id: str) -> bool:
        self.cluster.unbind(guest_id)
        return True

    def _beats(self) -> bool:
        found = self.cluster.heartbeat
        return found is not None and HeartbeatRecord.from_json(found.value).pid == self.daemons["heartbeat"].process.pid

    def _counts(self) -> bool:
        bound = self.cluster.store.read(Prefix(keys.hypervisor_guests(self.cluster.id))).ranges[0]
        record = self.cluster.resources
        return record is not None and record.computed_from["guests"] == len(bound)

    def _shows_node(self) -> bool:
        with httpx.Client(timeout=5, trust_env=False) as client:
            answer = client.get(f"{self.controller.urls[-1]}/hypervisors/{self.cluster.id}")
        return answer.status_code == 200 and bool(answer.json().get("alive"))

    @property
    def agent_url(self) -> str:
        return f"http://{self.daemons['agent'].logged('agent.listening')[-1]['address']}"

    @staticmethod
    def _answers(url: str, path: str) -> bool:
        with httpx.Client(timeout=5, trust_env=False) as client:
            return client.get(url + path).status_code == 200

    def wait_for(self, what: str, ask: Callable[[], T]) -> T:
        """What `ask` answers as soon as that is true; what is away in between is asked again."""

        def asked() -> T | None:
            try:
                return ask()
            except (LochnessError, httpx.HTTPError, IndexError):
                return None

        value = wait_until(asked, limit_s=LIMIT_S, what=what)
        assert value is not None
        return value

    # -- guests

    def add_guest(self) -> None:
        """Bind and define a guest that boots nothing, and wait until guestwatch has started it."""
        id, revision = self.cluster.bind("running", memory=32)
        driver = LibvirtDriver(self.libvirtd.uri_outside)
        try:
            driver.define(
                DomainSpec(
                    guest_id=GuestID(id),
                    binding_revision=revision,
                    title="",
                    memory_mb=32,
                    vcpus=1,
                    domain_type="qemu",
                )
            )
        finally:
            driver.close()
        self.guest_id = GuestID(id)
        self.cluster.wait_for_status(id, "running", limit_s=LIMIT_S)

    @property
    def is_guest_running(self) -> bool:
        """As libvirt has it."""
        driver = LibvirtDriver(self.libvirtd.uri_outside)
        try:
            return driver.domain(self.guest_id).state is DomainState.RUNNING
        finally:
            driver.close()

    def destroy_guest(self, *, is_undefined: bool = False) -> None:
        """Pull the guest's plug by way of libvirt, as somebody else would."""
        driver = LibvirtDriver(self.libvirtd.uri_outside)
        try:
            driver.destroy(self.guest_id)
            if is_undefined:
                driver.undefine(self.guest_id)
        finally:
            driver.close()

    @property
    def guest_status(self) -> KeyValue | None:
        return self.cluster.get(keys.guest_status(self.guest_id))
