"""P1: how many guests per second get a place, durably in etcd? The jobs are queued before the clock starts.

`ratio` is the share of the raw ceiling of the same run: a bare loop that writes the same four keys, with values of the
same length, for as many guests in the largest transactions, by the same client, without a compare or a decision.

    make bench-P1            QUICK=1 for 5,000 guests instead of 20,000
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.cluster import Cluster, batches, etcd, fill, waiting_guests, write
from lochness import keys
from lochness.clock import SystemClock
from lochness.ids import new_id
from lochness.invariants import check
from lochness.log import configure_logging
from lochness.store.protocol import Prefix, Put, Store
from lochness_controller.scheduler.decide import BATCH_MAX
from lochness_controller.scheduler.shell import Scheduler
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.view import JobsView
from lochness_lab.waiting import wait_until

HYPERVISORS: Final = 1000
ROUNDS: Final = 3


@contextmanager
def scheduler_on(store: Store) -> Iterator[Scheduler]:
    """A scheduler that follows the cluster, as a controller's."""
    scheduler = Scheduler(store, JobsView(), SystemClock(), worker="bench", workers_alive=lambda: {"bench"})
    scheduler.start()
    try:
        wait_until(lambda: scheduler.live.is_current, limit_s=60, what="view of the cluster")
        yield scheduler
    finally:
        scheduler.stop()


def place_all(scheduler: Scheduler, known: list[KnownJob]) -> float:
    """Seconds until the last one is committed."""
    started = time.perf_counter()
    for batch in batches(known, BATCH_MAX):
        scheduler.place(batch)
    return time.perf_counter() - started


def raw_ceiling_s(store: Store, cluster: Cluster, count: int, lengths: dict[str, int]) -> float:
    """Seconds in which the bare loop writes as many guests."""
    puts = []
    for number in range(count):
        guest, host = new_id(), cluster.hypervisors[number % len(cluster.hypervisors)]
        for kind, key in (
            ("binding", keys.hypervisor_guest(host, guest)),
            ("address", keys.subnet_address(cluster.subnet, f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}")),
            ("guest", keys.guest(guest)),
            ("job", keys.job(new_id())),
        ):
            puts.append(Put(f"ceiling/{key}", b"x" * lengths[kind]))
    started = time.perf_counter()
    write(store, puts)
    return time.perf_counter() - started


def written_lengths(store: Store, known: KnownJob) -> dict[str, int]:
    """How long the values are that a placement writes."""
    items = store.read(Prefix(keys.guest_prefix(known.job.guest)), Prefix(keys.job(known.job.id))).ranges
    binding = next(
        item for item in store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0] if item.key.endswith(known.job.guest)
    )
    lengths = {"binding": len(binding.value), "address": len(known.job.guest)}
    return lengths | {"guest": len(items[0][0].value), "job": len(items[1][0].value)}


def run(hypervisors: int, guests: int) -> tuple[float, float, int]:
    """Guests per second, the raw ceiling's, and how many broken promises or unplaced guests are left."""
    with etcd() as (_, store):
        cluster = fill(store, hypervisors)
        first = waiting_guests(store, cluster, 200)
        with scheduler_on(store) as scheduler:
            place_all(scheduler, first)  # everything is loaded and connected
            known = waiting_guests(store, cluster, guests)
            lengths = written_lengths(store, first[0])
            before_s = raw_ceiling_s(store, cluster, guests, lengths)
            took_s = place_all(scheduler, known)
        items = store.read(Prefix(keys.ROOT)).ranges[0]
    bound = sum(item.key.split("/")[1::2] == ["hypervisors", "guests"] for item in items)
    return guests / took_s, guests / before_s, len(check(items)) + guests + len(first) - bound


def main() -> None:
    configure_logging("error")
    quick = bool(os.environ.get("QUICK"))
    guests, rounds = (5000, 1) if quick else (20_000, ROUNDS)
    rates, ratios, wrong = [], [], 0
    for number in range(rounds):
        rate, ceiling, violations = run(HYPERVISORS, guests)
        print(f"round {number + 1}: {rate:.0f} guests/s, ceiling {ceiling:.0f}, violations {violations}", flush=True)
        rates.append(rate)
        ratios.append(rate / ceiling)
        wrong += violations
    print(
        f"P1 value={statistics.median(rates):.0f} unit=guests/s ratio={statistics.median(ratios):.2f} n={guests} "
        f"hypervisors={HYPERVISORS} violations={wrong} rounds={rounds}"
    )


if __name__ == "__main__":
    main()
