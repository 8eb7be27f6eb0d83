"""One hypervisor for the node's benchmarks: etcd, a libvirtd, daemons as processes with their own defaults.

Guests are domains of libvirt's test driver inside that libvirtd: libvirt's calls and events come by its socket as
always, only no QEMU runs behind them.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lochness.identity import GuestID
from lochness.store.protocol import Key, Watch
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import DomainSpec
from tests.process.node_daemons import Cluster, NodeProcess


class BenchNode:
    """Daemons on `libvirt`, a URI."""

    def __init__(self, directory: Path, etcd: EtcdServer, libvirt: str) -> None:
        self.directory = directory
        self.libvirt = libvirt
        self.etcd = etcd
        self.cluster = Cluster(etcd.url)
        self.driver = LibvirtDriver(libvirt)
        self.daemons: dict[str, NodeProcess] = {}

    def close(self) -> None:
        for daemon in self.daemons.values():
            daemon.__exit__(None, None, None)
        self.driver.close()
        self.cluster.store.close()

    def start(self, *names: str, config: str = "") -> None:
        """Start the daemons `names` with their defaults, and `config`, and wait until they are ready."""
        file = self.directory / "node.toml"
        state = self.directory / "state"
        agent = f'[agent]\nlisten = "127.0.0.1:0"\nstate_dir = "{state}"\nimage_dir = "{state}/images"\n'
        file.write_text(f"{config}\n{agent}")
        for name in names:
            libvirt = () if name == "heartbeat" else ("--libvirt", self.libvirt)
            self.daemons[name] = NodeProcess(self.directory, name, *self.cluster.flags, "--config", str(file), *libvirt)
        for daemon in self.daemons.values():
            daemon.wait_until_ready(120)

    def add_guests(
        self, count: int, power: str = "running", domain_type: Literal["test", "qemu"] = "test"
    ) -> list[GuestID]:
        """Guests that are bound, defined and running."""
        guests = []
        for _ in range(count):
            id, revision = self.cluster.bind(power, memory=16)
            self.driver.define(
                DomainSpec(
                    guest_id=GuestID(id),
                    binding_revision=revision,
                    title="",
                    memory_mb=16,
                    vcpus=1,
                    domain_type=domain_type,
                )
            )
            self.driver.start(GuestID(id))
            guests.append(GuestID(id))
        return guests


@contextlib.contextmanager
def bench_node() -> Iterator[BenchNode]:
    """A node of its own, gone afterwards."""
    if reason := Libvirtd.available():
        raise SystemExit(f"needs the real parts: {reason}")
    with tempfile.TemporaryDirectory(prefix="lochness-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        with (
            EtcdServer(directory / "etcd") as etcd,
            Machine(directory / "m", "bench") as machine,
            Libvirtd(machine) as libvirtd,
            contextlib.closing(BenchNode(directory, etcd, f"test+unix:///default?socket={libvirtd.socket}")) as node,
        ):
            yield node


def seconds_until(
    cluster: Cluster,
    watch: Watch,
    key: str,
    act: Callable[[], object],
    accept: Callable[[bytes], bool],
    limit_s: float = 60.0,
) -> float:
    """From the beginning of `act` until `watch` tells of a value of `key` that `accept` takes.

    `watch` has been open for a while: etcd looks after a new one that asks for what has been every 100 ms only.
    """
    revision = cluster.store.read(Key(key)).revision
    began_s = time.monotonic()
    act()
    while time.monotonic() < began_s + limit_s:
        batch = watch.next(1.0)
        for change in batch.changes if batch else ():
            is_news = change.key == key and change.mod_revision > revision
            if is_news and change.value is not None and accept(change.value):
                return time.monotonic() - began_s
    raise SystemExit(f"nothing came to {key} within {limit_s:g} s")
