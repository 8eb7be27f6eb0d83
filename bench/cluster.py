"""A cluster in an etcd without any machine: hypervisors that seem alive, a network, guests that wait for a place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lochness import keys
from lochness.ids import new_id
from lochness.model.address import guest_mac
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import GuestRecord, PowerRecord
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.job import SELECT_HYPERVISOR, JobRecord, rfc3339
from lochness.model.network import NetworkRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Operation, Put, Store
from lochness_controller.workers.decide import KnownJob
from lochness_lab.etcd import EtcdServer

PUTS_PER_TRANSACTION: Final = 128
LEASE_TTL_S: Final = 3600
GUEST: Final = Resources(memory=1024, disk=10_000, cpu=1)
HYPERVISOR: Final = Resources(memory=1_024_000, disk=16_000_000, cpu=512)


@dataclass(frozen=True)
class Cluster:
    """Ids of what `fill` made."""

    hypervisors: tuple[str, ...]
    network: str
    subnet: str
    flavor: str


@contextmanager
def etcd() -> Iterator[tuple[EtcdServer, EtcdStore]]:
    """An empty etcd and a store on it."""
    with (
        tempfile.TemporaryDirectory(prefix="lochness-bench-") as directory,
        EtcdServer(Path(directory)) as server,
        EtcdStore([server.url], timeout_s=60) as store,
    ):
        yield server, store


def write(store: Store, operations: Iterable[Operation]) -> int:
    """In as few transactions as possible; answers the last one's revision."""
    every = list(operations)
    revision = 0
    for start in range(0, len(every), PUTS_PER_TRANSACTION):
        revision = store.commit((), every[start : start + PUTS_PER_TRANSACTION])
    return revision


def fill(store: Store, hypervisors: int, *, total: Resources = HYPERVISOR) -> Cluster:
    """Hypervisors, each with its heartbeat under a lease of its own, and one network of one large subnet."""
    ids = tuple(new_id() for _ in range(hypervisors))
    network, subnet, flavor, image = new_id(), new_id(), new_id(), new_id()
    now = rfc3339(datetime.now(UTC))
    operations: list[Operation] = [
        Put(keys.image(image), ImageRecord(id=image, source="https://images.example.org/small.qcow2").to_json()),
        Put(
            keys.flavor(flavor),
            FlavorRecord(id=flavor, image=image, memory=GUEST.memory, disk=GUEST.disk, cpu=GUEST.cpu).to_json(),
        ),
        Put(keys.network(network), NetworkRecord(id=network).to_json()),
        Put(keys.network_subnet(network, subnet), b"{}"),
        Put(
            keys.subnet(subnet),
            SubnetRecord(
                id=subnet, network=network, cidr="10.0.0.0/8", gateway="10.0.0.1", start="10.0.0.10", end="10.255.0.0"
            ).to_json(),
        ),
    ]
    for number, id in enumerate(ids):
        record = HypervisorRecord(id=id, metadata={"rack": f"r{number % 40}"}, ip="10.1.2.3", mac="02:00:00:00:00:01")
        heartbeat = HeartbeatRecord(host=f"hv{number}", since=now, ttl_s=LEASE_TTL_S)
        resources = ResourcesRecord(total=total, available=total, guest_overhead_mb=128)
        operations += [
            Put(keys.hypervisor(id), record.operator_part()),
            Put(keys.hypervisor_resources(id), resources.to_json()),
            Put(keys.hypervisor_heartbeat(id), heartbeat.to_json(), lease_id=store.grant_lease(LEASE_TTL_S)),
            Put(keys.hypervisor_subnet(id, subnet), b"br0"),
        ]
    write(store, operations)
    return Cluster(ids, network, subnet, flavor)


def waiting_guests(store: Store, cluster: Cluster, count: int) -> list[KnownJob]:
    """Guests whose create was accepted: their records, what they should be, and their jobs."""
    operations: list[Operation] = []
    jobs = []
    now = rfc3339(datetime.now(UTC))
    for number in range(count):
        id = new_id()
        guest = GuestRecord(
            id=id, type="kvm", metadata={"name": f"guest-{number}"}, flavor=cluster.flavor, network=cluster.network,
            mac=guest_mac(id),
        )  # fmt: skip
        job = JobRecord(id=new_id(), guest=id, action=SELECT_HYPERVISOR, request="create", created_at=now)
        jobs.append(job)
        operations += [
            Put(keys.job(job.id), job.to_json()),
            Put(keys.guest(id), guest.to_json()),
            Put(keys.guest_power(id), PowerRecord().to_json()),
        ]
    known = []
    for start in range(0, count, PUTS_PER_TRANSACTION // 3):
        stop = min(start + PUTS_PER_TRANSACTION // 3, count)
        revision = store.commit((), operations[3 * start : 3 * stop])
        known += [KnownJob(job, revision, revision) for job in jobs[start:stop]]
    return known


def batches(known: Sequence[KnownJob], size: int) -> Iterator[Sequence[KnownJob]]:
    for start in range(0, len(known), size):
        yield known[start : start + size]
