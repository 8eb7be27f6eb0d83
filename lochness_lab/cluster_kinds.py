"""Which kinds of cluster are there: real guests in a machine of namespaces, or libvirt's test driver for any user?

with QemuCluster(directory) as cluster:     real guests, everything in one machine of namespaces
with DriverCluster(directory) as cluster:   libvirt's test driver, free ports of loopback, any user
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lochness_lab.cluster import Cluster, Tell
from lochness_lab.etcd import EtcdServer, free_ports
from lochness_lab.guest_image import default_cache
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.processes import Process


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
