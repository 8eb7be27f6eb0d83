"""A2: how many guests a second does a controller bring from POST /guests to done, and are any lost?

One controller on 1,000 simulated hypervisors (bench/fleet.py), whose agents answer at once; clients post creates as
fast as they are taken. The clock runs from the first POST to the end of the last job: accepted, placed, the image
fetched, the guest created, all of it durable in etcd. A job that was accepted and is not done, and a guest that not
exactly one agent has, counts as lost. Clients and agents take their share of the same processors.

    make bench-A2            QUICK=1 for 300 guests; A2_GUESTS=N for N
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final

import httpx

from bench.controller import Controller
from bench.fleet import Fleet
from lochness import keys
from lochness.model.job import JobRecord
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Prefix, Store
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until

HYPERVISORS: Final = 1000
GUESTS: Final = 3000
QUICK_GUESTS: Final = 300
CLIENTS: Final = 8
END_LIMIT_S: Final = 900.0


class Clients:
    """Post `guests` creates, as fast as they are taken."""

    def __init__(self, url: str, fleet: Fleet, guests: int) -> None:
        self._url = url
        self._body = {"flavor": fleet.flavor, "network": fleet.network}
        self._numbers = count()
        self._guests = guests
        self._lock = threading.Lock()
        #: The accepted jobs and when each was posted, in seconds since the epoch.
        self.posted_s: dict[str, float] = {}
        self.refused = 0

    def run(self) -> None:
        threads = [threading.Thread(target=self._post, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _post(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while next(self._numbers) < self._guests:
                posted_s = time.time()
                answer = client.post(f"{self._url}/guests", json=self._body)
                with self._lock:
                    if answer.status_code == 202:
                        self.posted_s[answer.headers["X-Guest-Job-ID"]] = posted_s
                    else:
                        self.refused += 1


def jobs_of(store: Store) -> list[JobRecord]:
    return [JobRecord.from_json(item.value) for item in store.read(Prefix(keys.JOB_PATH)).ranges[0]]


def main() -> None:
    guests = int(os.environ.get("A2_GUESTS") or (QUICK_GUESTS if os.environ.get("QUICK") else GUESTS))
    print(f"A2: {guests} guests on {HYPERVISORS} hypervisors, {CLIENTS} clients", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="lochness-a2-") as directory,
        EtcdServer(Path(directory) / "etcd") as etcd,
        EtcdStore([etcd.url], timeout_s=30) as store,
        Fleet(store, HYPERVISORS) as fleet,
    ):
        controller = Controller(Path(directory), etcd.url)
        controller.start()
        try:
            print("A2: the controller is up", flush=True)
            clients = Clients(controller.url, fleet, guests)
            cpu_s, began_s = controller.cpu_s, time.time()
            clients.run()
            posted_s = time.time() - began_s
            print(f"A2: {len(clients.posted_s)} accepted in {posted_s:.1f} s, {clients.refused} refused", flush=True)
            wait_until(lambda: all(job.is_finished for job in jobs_of(store)), limit_s=END_LIMIT_S, what="end of all")
            cpu_s = controller.cpu_s - cpu_s
            there = fleet.guests()
        finally:
            controller.kill()
        jobs = {job.id: job for job in jobs_of(store)}
    ends_s = {id: datetime.fromisoformat(job.finished_at).timestamp() for id, job in jobs.items()}
    lost = [id for id in clients.posted_s if id not in jobs or jobs[id].status != "done"]
    lost += [id for id, job in jobs.items() if len(there.get(job.guest, ())) != 1]
    waits_s = sorted(ends_s[id] - clients.posted_s[id] for id in clients.posted_s if id in ends_s)
    rate = len(clients.posted_s) / (max(ends_s.values()) - began_s)
    print(
        f"A2 value={rate:.0f} unit=creates/s lost={len(set(lost))} n={guests} hypervisors={HYPERVISORS} "
        f"accepted_per_s={len(clients.posted_s) / posted_s:.0f} p50_s={statistics.median(waits_s):.2f} "
        f"p99_s={waits_s[int(len(waits_s) * 0.99)]:.2f} controller_cpu_ms_per_guest={cpu_s / guests * 1000:.1f}"
    )
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
