"""How does one get many hypervisors without a machine? N of them in this process: heartbeats, resources, agents.

    with EtcdServer(directory) as etcd, EtcdStore([etcd.url]) as store, Fleet(store, 20) as fleet:
        ... a controller on etcd.url places guests of fleet.flavor in fleet.network ...

1. Each has a lease of its own with a heartbeat under it, renewed as the heartbeat daemon does; its total resources; a
   subnet; and an agent that speaks WIRE.md section 6 over HTTP on loopback, all on one port.
2. Every `minimal_every`-th agent is as little as an agent can be: it does not wait, and does not tell its requests.
3. `cut` is a power cut: the heartbeat is not renewed and the agent not reached; guests stay in the agent's memory.

    python -m bench.fleet --etcd http://127.0.0.1:2379 --hypervisors 100      until Ctrl-C, for any controller

Not simulated: available resources as they change; no daemon computes them, the scheduler counts bindings itself.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, Self

from lochness import keys
from lochness.agent_requests import AGENT_URL_CONFIG
from lochness.errors import LeaseNotFoundError, LochnessError
from lochness.ids import new_id
from lochness.model.flavor import FlavorRecord
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.job import rfc3339
from lochness.model.network import NetworkRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.store.connect import open_store
from lochness.store.protocol import Operation, Put, Store
from lochness_lab.fake_agent import AgentServer, FakeAgent

PUTS_PER_TRANSACTION: Final = 120
LEASE_TTL_S: Final = 30
GUEST: Final = Resources(memory=512, disk=1024, cpu=1)
FIRST_ADDRESS: Final = IPv4Address("10.0.0.10")
ADDRESSES: Final = 16_000_000
HYPERVISOR: Final = Resources(memory=256_000, disk=2_000_000, cpu=128)


class Fleet:
    """A context manager, or start() and stop(). `job_s` is how long an agent's job takes, `addresses` how many the
    network has."""

    def __init__(
        self,
        store: Store,
        hypervisors: int,
        *,
        total: Resources = HYPERVISOR,
        guest: Resources = GUEST,
        job_s: float = 0.0,
        ttl_s: int = LEASE_TTL_S,
        minimal_every: int = 0,
        addresses: int = ADDRESSES,
    ) -> None:
        self._store = store
        self._total = total
        self._guest = guest
        self._ttl_s = ttl_s
        self._addresses = addresses
        #: The agents by their hypervisors' ids.
        self.agents: dict[str, FakeAgent] = {}
        for number in range(1, hypervisors + 1):
            is_minimal = bool(minimal_every) and number % minimal_every == 0
            self.agents[new_id()] = FakeAgent(waits=not is_minimal, tells_requests=not is_minimal, job_s=job_s)
        self.network, self.subnet, self.image, self.flavor = (new_id() for _ in range(4))
        self._server = AgentServer(self.agents.get, has_names=True)
        self._leases: dict[str, int] = {}
        self._dark: set[str] = set()
        self._beating = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="fleet", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Register everything and begin to beat."""
        self._server.start()
        for agent in self.agents.values():
            agent.power_on()
        self._write(self._catalog())
        self._write(operation for id in self.agents for operation in self._hypervisor(id))
        self._thread.start()

    def stop(self) -> None:
        """End the leases; the agents are not reached any more."""
        self._stopping.set()
        self._thread.join()
        for agent in self.agents.values():
            agent.power_off()
        self._server.stop()
        try:
            for lease in self._leases.values():
                self._store.revoke_lease(lease)
        except LochnessError:
            return  # they end by themselves

    def cut(self, hypervisor: str, *, is_lease_over: bool = False) -> None:
        """Cut the hypervisor's power: its heartbeat ends with its lease, or has ended already."""
        with self._beating:
            self._dark.add(hypervisor)
        self.agents[hypervisor].power_off()
        if is_lease_over:
            self._store.revoke_lease(self._leases[hypervisor])

    def restore(self, hypervisor: str) -> None:
        """Give it its power back. It beats within a third of its lease's time."""
        self._dark.discard(hypervisor)
        self.agents[hypervisor].power_on()

    def guests(self) -> dict[str, list[str]]:
        """The guests that agents have, each with the hypervisors that have it: one, unless something is wrong."""
        found: dict[str, list[str]] = {}
        for id, agent in self.agents.items():
            for guest in agent.guests:
                found.setdefault(guest, []).append(id)
        return found

    def _catalog(self) -> list[Operation]:
        flavor = FlavorRecord(
            id=self.flavor, image=self.image, memory=self._guest.memory, disk=self._guest.disk, cpu=self._guest.cpu
        )
        subnet = SubnetRecord(
            id=self.subnet,
            network=self.network,
            cidr="10.0.0.0/8",
            gateway="10.0.0.1",
            start=str(FIRST_ADDRESS),
            end=str(FIRST_ADDRESS + self._addresses - 1),
        )
        image = ImageRecord(id=self.image, source="https://images.example.org/small.qcow2", sha256="ab" * 32)
        return [
            Put(keys.image(self.image), image.to_json()),
            Put(keys.flavor(self.flavor), flavor.to_json()),
            Put(keys.network(self.network), NetworkRecord(id=self.network).to_json()),
            Put(keys.network_subnet(self.network, self.subnet), b"{}"),
            Put(keys.subnet(self.subnet), subnet.to_json()),
        ]

    def _hypervisor(self, id: str) -> list[Operation]:
        resources = ResourcesRecord(total=self._total, available=self._total)
        return [
            Put(keys.hypervisor(id), HypervisorRecord(id=id, ip="127.0.0.1").operator_part()),
            Put(keys.hypervisor_resources(id), resources.to_json()),
            Put(keys.hypervisor_config(id, AGENT_URL_CONFIG), f"{self._server.url}/{id}".encode()),
            Put(keys.hypervisor_subnet(id, self.subnet), b"br0"),
            self._heartbeat(id),
        ]

    def _heartbeat(self, id: str) -> Put:
        self._leases[id] = self._store.grant_lease(self._ttl_s)
        record = HeartbeatRecord(host=id[:8], since=rfc3339(datetime.now(UTC)), ttl_s=self._ttl_s)
        return Put(keys.hypervisor_heartbeat(id), record.to_json(), self._leases[id])

    def _write(self, operations: Iterable[Operation]) -> None:
        every = list(operations)
        for start in range(0, len(every), PUTS_PER_TRANSACTION):
            self._store.commit((), every[start : start + PUTS_PER_TRANSACTION])

    def _beat(self) -> None:
        while not self._stopping.is_set():
            began_s = time.monotonic()
            for id in self.agents:
                with self._beating:
                    if id not in self._dark and not self._stopping.is_set():
                        self._renew(id)
            self._stopping.wait(max(0.1, self._ttl_s / 3 - (time.monotonic() - began_s)))

    def _renew(self, id: str) -> None:
        try:
            self._store.keep_alive(self._leases[id])
        except LeaseNotFoundError:
            self._write([self._heartbeat(id)])
        except LochnessError:
            return  # the next round is the next try


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated hypervisors on an etcd, until Ctrl-C.")
    parser.add_argument("--etcd", default="http://127.0.0.1:2379")
    parser.add_argument("--hypervisors", type=int, default=100)
    parser.add_argument("--job-s", type=float, default=0.0, help="how long an agent's job takes, in seconds")
    given = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    with open_store(given.etcd) as store, Fleet(store, given.hypervisors, job_s=given.job_s) as fleet:
        print(f"{given.hypervisors} hypervisors; flavor {fleet.flavor}, network {fleet.network}", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
