"""How long does it take to list 20,000 guests and 1,000 hypervisors from etcd? One range read each; medians."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from lochness import keys
from lochness.context import Context
from lochness.ids import new_id
from lochness.model.address import guest_mac
from lochness.model.guest import Binding, GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Operation, Put, Store
from lochness_lab.etcd import EtcdServer

GUESTS: Final = 20_000
HYPERVISORS: Final = 1_000
ROUNDS: Final = 7
PUTS_PER_TRANSACTION: Final = 120


def fill(store: Store, *, hypervisors: int = HYPERVISORS, guests: int = GUESTS) -> None:
    """Living hypervisors with their resources, and guests bound to them."""
    total = Resources(memory=256_000, disk=4_000_000, cpu=128)
    hosts = [new_id() for _ in range(hypervisors)]
    operations: list[Operation] = []
    for host in hosts:
        record = HypervisorRecord(id=host, metadata={"rack": "r1"}, ip="10.1.2.3", mac="02:00:00:00:00:01")
        operations.append(Put(keys.hypervisor(host), record.operator_part()))
        resources = ResourcesRecord(total=total, available=total)
        operations.append(Put(keys.hypervisor_resources(host), resources.to_json()))
        operations.append(Put(keys.hypervisor_heartbeat(host), b"{}"))  # alive: nobody is busy with lost hypervisors
    flavor, network, subnet = new_id(), new_id(), new_id()
    for number in range(guests):
        id, host = new_id(), hosts[number % hypervisors]
        guest = GuestRecord(
            id=id, metadata={"name": f"guest-{number}"}, type="kvm", flavor=flavor, hypervisor=host, network=network,
            subnet=subnet, mac=guest_mac(id), ip=f"10.2.{number >> 8 & 255}.{number & 255}", bridge="br0",
        )  # fmt: skip
        operations.append(Put(keys.guest(id), guest.to_json()))
        operations.append(Put(keys.hypervisor_guest(host, id), Binding(memory=1024, disk=10_000, cpu=1).to_json()))
    for start in range(0, len(operations), PUTS_PER_TRANSACTION):
        store.commit((), operations[start : start + PUTS_PER_TRANSACTION])


def median_s(make: Callable[[], Iterable[object]], expected: int) -> float:
    """Seconds to go through what `make` answers."""
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        count = sum(1 for _ in make())
        took.append(time.perf_counter() - started)
        assert count == expected
    return statistics.median(took)


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="lochness-lists-") as directory,
        EtcdServer(Path(directory)) as server,
        EtcdStore([server.url], timeout_s=30) as store,
    ):
        fill(store)
        context = Context(store)
        guests_s = median_s(context.guests, GUESTS)
        hypervisors_s = median_s(context.hypervisors, HYPERVISORS)
    print(f"lists guests={GUESTS} guests_s={guests_s:.3f} hypervisors={HYPERVISORS} hypervisors_s={hypervisors_s:.3f}")


if __name__ == "__main__":
    main()
