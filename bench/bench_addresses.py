"""What does picking a free address cost, by the size of the range and how full it is? Medians, on etcd."""

from __future__ import annotations

import ipaddress
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from lochness import keys
from lochness.context import Context
from lochness.entities.subnet import Subnet
from lochness.ids import new_id
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Operation, Put
from lochness_lab.etcd import EtcdServer

ROUNDS: Final = 100
PUTS_PER_TRANSACTION: Final = 120

#: Network, share of it that is used before.
CASES: Final = (
    ("10.0.0.0/24", 0.0),
    ("10.1.0.0/16", 0.0),
    ("10.1.0.0/16", 0.99),
    ("10.0.0.0/8", 0.0),
    ("fd00::/64", 0.0),
)


def subnet_with(context: Context, cidr: str, share: float) -> Subnet:
    """A subnet of which this share of the addresses, from the beginning, is used."""
    network = ipaddress.ip_network(cidr)
    subnet = context.new_subnet()
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - 1
    build = type(network.network_address)
    subnet.cidr, subnet.start, subnet.end = cidr, str(build(first)), str(build(last))
    subnet.save()
    used = int((last - first + 1) * share) if share else 0
    puts: list[Operation] = [
        Put(keys.subnet_address(subnet.id, str(build(first + number))), b"taken") for number in range(used)
    ]
    for start in range(0, len(puts), PUTS_PER_TRANSACTION):
        context.store.commit((), puts[start : start + PUTS_PER_TRANSACTION])
    return subnet


def main() -> None:
    table = Table("network", "used", "median ms", "p99 ms", title="reserve_address")
    with (
        tempfile.TemporaryDirectory(prefix="lochness-addresses-") as directory,
        EtcdServer(Path(directory)) as server,
        EtcdStore([server.url], timeout_s=30) as store,
    ):
        for cidr, share in CASES:
            subnet = subnet_with(Context(store), cidr, share)
            took_ms = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                subnet.reserve_address(new_id())
                took_ms.append(1000 * (time.perf_counter() - started))
            p99 = statistics.quantiles(took_ms, n=100)[98]
            table.add_row(cidr, f"{share:.0%}", f"{statistics.median(took_ms):.1f}", f"{p99:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
