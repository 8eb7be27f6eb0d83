"""P9: what does the cluster cost etcd? Leases per host, writes per guest from create to delete, the database's size.

The fleet is simulated: of a guest's writes those of guestwatch (its status, about four) are not among them. The size is
that of the database's file with 1,000 hypervisors and 20,000 guests as they were placed, compacted by nobody.

    make bench-P9            QUICK=1 with 2,000 guests
"""

from __future__ import annotations

import os
import statistics
from typing import Final

from bench.p3_one_guest import HYPERVISORS, LIMIT_S, Idle, idle_cluster, job_end, now_at, post_guest
from lochness import keys
from lochness.log import configure_logging
from lochness.store.protocol import Key, Prefix

GUESTS: Final = 5


def writes_of_a_guest(idle: Idle) -> int:
    """Keys written and removed, from POST to the end of its delete, its two jobs among them."""
    watch = idle.store.watch(keys.ROOT, start_revision=now_at(idle))
    written = 0
    try:
        created = post_guest(idle, idle.fleet.flavor)
        create, guest = created.headers["X-Guest-Job-ID"], created.json()["id"]
        if job_end(idle.client, create)["status"] != "done":
            raise SystemExit(f"guest {guest} was not created")
        delete = idle.client.delete(f"/guests/{guest}").headers["X-Guest-Job-ID"]
        job_end(idle.client, delete)
        last = idle.store.read(Key(keys.job(delete))).revision
        while batch := watch.next(LIMIT_S):
            written += sum(
                guest in change.key
                or change.key in (keys.job(create), keys.job(delete))
                or change.value == guest.encode()
                for change in batch.changes
            )
            if batch.revision >= last:
                break
    finally:
        watch.close()
    return written + 1  # the address that was freed: its event has no value


def main() -> None:
    configure_logging("error")
    guests = 2000 if os.environ.get("QUICK") else 20_000
    with idle_cluster(guests) as idle:
        size = sum(file.stat().st_size for file in idle.directory.rglob("snap/db")) / 1e6
        items = idle.store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0]
        leases = len({item.lease_id for item in items if item.lease_id})
        writes = statistics.median(writes_of_a_guest(idle) for _ in range(GUESTS))
    print(
        f"P9 value={size:.0f} unit=MB leases_per_host={leases / HYPERVISORS:g} writes_per_guest={writes:.0f} "
        f"hypervisors={HYPERVISORS} guests={guests}"
    )


if __name__ == "__main__":
    main()
