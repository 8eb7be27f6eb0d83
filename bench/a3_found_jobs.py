"""A3: a controller starts and finds thousands of jobs waiting. How long until it has got through, and at which memory?

The creates lie in etcd, accepted by a controller that is gone; 1,000 simulated hypervisors (bench/fleet.py) have room
for all of them. The clock runs from the start of the process to the last job's end: the start itself, the reading of
all jobs, placing, fetching, creating. A job that is not done, and a guest that not exactly one agent has, counts as
lost. The agents are in this process and take their share of the same processors.

    make bench-A3            QUICK=1 for 300 jobs; A3_JOBS=N for N
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx

from bench.a2_created_guests import END_LIMIT_S, HYPERVISORS, jobs_of
from bench.cluster import Cluster, waiting_guests
from bench.controller import Controller
from bench.fleet import Fleet
from lochness import keys
from lochness.invariants import check
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Prefix
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until

JOBS: Final = 5000
QUICK_JOBS: Final = 300


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", timeout=30, trust_env=False).status_code == 200


def main() -> None:
    count = int(os.environ.get("A3_JOBS") or (QUICK_JOBS if os.environ.get("QUICK") else JOBS))
    print(f"A3: {count} jobs wait for a controller, {HYPERVISORS} hypervisors", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="lochness-a3-") as directory,
        EtcdServer(Path(directory) / "etcd") as etcd,
        EtcdStore([etcd.url], timeout_s=30) as store,
        Fleet(store, HYPERVISORS) as fleet,
    ):
        cluster = Cluster(tuple(fleet.agents), fleet.network, fleet.subnet, fleet.flavor)
        waiting = {known.job.id for known in waiting_guests(store, cluster, count)}
        controller = Controller(Path(directory), etcd.url)
        began_s = time.monotonic()
        controller.start()
        try:
            wait_until(lambda: is_ready(controller.url), limit_s=END_LIMIT_S, what="a controller that is ready")
            ready_s = time.monotonic() - began_s
            print(f"A3: ready after {ready_s:.1f} s", flush=True)
            wait_until(lambda: all(job.is_finished for job in jobs_of(store)), limit_s=END_LIMIT_S, what="end of all")
            took_s = time.monotonic() - began_s
            memory_mb = controller.memory_max_mb
        finally:
            controller.kill()
        there = fleet.guests()
        jobs = {job.id: job for job in jobs_of(store)}
        broken = check(store.read(Prefix(keys.ROOT)).ranges[0])
    lost = [id for id in waiting if id not in jobs or jobs[id].status != "done"]
    lost += [id for id, job in jobs.items() if len(there.get(job.guest, ())) != 1]
    print(
        f"A3 value={took_s:.1f} unit=s n={count} hypervisors={HYPERVISORS} ready_s={ready_s:.1f} "
        f"memory_max_mb={memory_mb:.0f} lost={len(set(lost))} violations={len(broken)}"
    )
    raise SystemExit(1 if lost or broken else 0)


if __name__ == "__main__":
    main()
