"""P7: how soon is it in etcd that a guest has ended, and that a binding takes room?

Resources and guestwatch run as processes with their defaults. Again and again a domain is destroyed by way of libvirt,
timed from before that call until a watcher has the guest's status "stopped"; and a guest is bound, timed from before
the transaction until a watcher has the resources record that counts it.

    make bench-P7            QUICK=1 for 50 of each
"""

from __future__ import annotations

import os
import statistics
from typing import Final

from bench.node import bench_node, seconds_until
from lochness import keys
from lochness.model.guest import GuestStatus
from lochness.model.resources import ResourcesRecord
from lochness.store.protocol import Key
from lochness_lab.waiting import wait_until

GUESTS: Final = 50
GOAL_P50_MS: Final = 25.0
GOAL_P99_MS: Final = 250.0


def main() -> None:
    rounds = 50 if os.environ.get("QUICK") else 300
    ends, bindings = [], []
    with bench_node() as node:
        cluster = node.cluster
        watch = cluster.store.watch(keys.ROOT, start_revision=cluster.store.read(Key(keys.ROOT)).revision + 1)
        guests = node.add_guests(GUESTS, "stopped")  # on, though nobody wants it: so their end is final
        node.start("heartbeat", "resources", "guestwatch")
        wait_until(lambda: all(cluster.status(guest) for guest in guests), limit_s=60, what="every status")
        for index in range(rounds):
            guest = guests[index % GUESTS]
            key = keys.guest_status(guest)
            cluster.wait_for_status(guest, "running")
            ends.append(
                seconds_until(
                    cluster,
                    watch,
                    key,
                    lambda guest=guest: node.driver.destroy(guest),  # type: ignore[misc]
                    lambda value: GuestStatus.from_json(value).state == "stopped",
                )
            )
            node.driver.start(guest)
            count = GUESTS + index + 1
            bindings.append(
                seconds_until(
                    cluster,
                    watch,
                    keys.hypervisor_resources(cluster.id),
                    lambda: cluster.bind("stopped", memory=1),
                    lambda value, count=count: ResourcesRecord.from_json(value).computed_from["guests"] == count,  # type: ignore[misc]
                )
            )
            if index % 50 == 49:
                print(f"P7: {index + 1} of {rounds}", flush=True)
    print(f"P7: domain's end to status: {told(ends)}; binding to available: {told(bindings)}")
    print(f"P7: goal: p50 {GOAL_P50_MS:g} ms, p99 {GOAL_P99_MS:g} ms")
    print(
        f"P7 value={p50_ms(ends):.1f} unit=ms p99={p99_ms(ends):.1f} "
        f"binding_p50={p50_ms(bindings):.1f} binding_p99={p99_ms(bindings):.1f} n={rounds} guests={GUESTS}"
    )


def told(seconds: list[float]) -> str:
    return f"p50 {p50_ms(seconds):.1f} ms, p99 {p99_ms(seconds):.1f} ms, max {1000 * max(seconds):.1f} ms"


def p50_ms(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)


def p99_ms(seconds: list[float]) -> float:
    return 1000 * statistics.quantiles(seconds, n=100, method="inclusive")[98]


if __name__ == "__main__":
    main()
