"""P3: one guest on an idle cluster of 1,000 hypervisors and 20,000 guests: how long from POST /guests to its binding?

The end is when this process sees the binding in etcd. After it come guests that fit nowhere (`refused_...`): from
POST to the job that has failed, with the tally of why.

    make bench-P3            QUICK=1 with 2,000 guests
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from bench.cluster import Cluster, etcd, waiting_guests
from bench.controller import Controller
from bench.fleet import Fleet
from bench.p1_placements import place_all, scheduler_on
from lochness import keys
from lochness.log import configure_logging
from lochness.model.resources import Resources
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Delete, Key, Prefix, Watch

HYPERVISORS: Final = 1000
LEASE_TTL_S: Final = 3600
LIMIT_S: Final = 60.0
ROOM: Final = Resources(memory=2_048_000, disk=16_000_000, cpu=1024)


@dataclass(frozen=True)
class Idle:
    """A cluster with its guests placed, and a controller on it. `directory` has etcd's data."""

    directory: Path
    store: EtcdStore
    fleet: Fleet
    client: httpx.Client


@contextmanager
def idle_cluster(guests: int) -> Iterator[Idle]:
    """1,000 simulated hypervisors with so many guests, and one `lochness-controller`."""
    with (
        etcd() as (server, store),
        Fleet(store, HYPERVISORS, total=ROOM, ttl_s=LEASE_TTL_S) as fleet,
        tempfile.TemporaryDirectory(prefix="lochness-p3-") as directory,
    ):
        cluster = Cluster(tuple(fleet.agents), fleet.network, fleet.subnet, fleet.flavor)
        with scheduler_on(store) as scheduler:
            place_all(scheduler, waiting_guests(store, cluster, guests))
        finish_jobs(store)
        controller = Controller(Path(directory), server.url)
        controller.start()
        try:
            with httpx.Client(base_url=controller.url, timeout=LIMIT_S, trust_env=False) as client:
                ask_until(client, "/readyz", lambda answer: answer.status_code == 200)
                yield Idle(server.directory, store, fleet, client)
        finally:
            controller.kill()


def finish_jobs(store: EtcdStore) -> None:
    """The guests are there; nobody is to create them on the simulated agents."""
    jobs = store.read(Prefix(keys.JOB_PATH, keys_only=True)).ranges[0]
    for start in range(0, len(jobs), 120):
        store.commit((), [Delete(item.key) for item in jobs[start : start + 120]])


def ask_until(client: httpx.Client, path: str, is_it: Callable[[httpx.Response], bool]) -> httpx.Response:
    """GET until the answer is the one that is waited for. Raises SystemExit after LIMIT_S."""
    deadline_s = time.monotonic() + LIMIT_S
    while not is_it(answer := client.get(path)):
        if time.monotonic() > deadline_s:
            break
        threading.Event().wait(0.02)
    else:
        return answer
    raise SystemExit(f"{path} answered {answer.status_code} {answer.text} for {LIMIT_S} s")


def job_end(client: httpx.Client, job: str) -> dict[str, Any]:
    """The job once it has ended, asked for as a client does that waits."""
    ended = ask_until(client, f"/jobs/{job}?wait_s=5", lambda answer: answer.json()["status"] in ("done", "error"))
    return dict(ended.json())


def post_guest(idle: Idle, flavor: str) -> httpx.Response:
    answer = idle.client.post("/guests", json={"flavor": flavor, "network": idle.fleet.network})
    if answer.status_code != 202:
        raise SystemExit(f"POST /guests answered {answer.status_code}: {answer.text}")
    return answer


def now_at(idle: Idle) -> int:
    """The store's next revision."""
    return idle.store.read(Key(keys.ROOT)).revision + 1


def bound_ms(idle: Idle, watch: Watch) -> float:
    """From POST to the binding in etcd, which `watch`, of all hypervisors, tells of."""
    started_s = time.perf_counter()
    answer = post_guest(idle, idle.fleet.flavor)
    guest = answer.json()["id"]
    is_bound = False
    while not is_bound:
        batch = watch.next(LIMIT_S)
        if batch is None:
            raise SystemExit(f"guest {guest} was not placed within {LIMIT_S} s")
        is_bound = any(change.key.endswith(guest) for change in batch.changes)
    took_ms = (time.perf_counter() - started_s) * 1000
    job_end(idle.client, answer.headers["X-Guest-Job-ID"])
    return took_ms


def refused_ms(idle: Idle, flavor: str) -> float:
    """From POST to the failed job with its tally."""
    started_s = time.perf_counter()
    job = job_end(idle.client, post_guest(idle, flavor).headers["X-Guest-Job-ID"])
    took_ms = (time.perf_counter() - started_s) * 1000
    functions = {each["function"]: each for each in job["explanation"]["functions"]}
    if functions["candidate_has_resources"]["reasons"] != {"insufficient_memory": HYPERVISORS}:
        raise SystemExit(f"the job's tally is wrong: {job}")
    return took_ms


def share(found: list[float], of: float) -> float:
    return sorted(found)[min(len(found) - 1, int(len(found) * of))]


def main() -> None:
    configure_logging("error")
    guests, posts = (2000, 60) if os.environ.get("QUICK") else (20_000, 500)
    with idle_cluster(guests) as idle:
        image = {"image": idle.fleet.image, "disk": 1024, "cpu": 1}
        # One watch for all: etcd looks after a new one that asks for what has been every 100 ms only.
        watch = idle.store.watch(keys.HYPERVISOR_PATH, start_revision=now_at(idle))
        bound_ms(idle, watch)  # everything is loaded and connected
        found = [bound_ms(idle, watch) for _ in range(posts)]
        watch.close()
        print(f"{posts} guests: slowest {max(found):.1f} ms", flush=True)
        refused = []
        for number in range(20):  # each of another size: nothing that was decided before helps
            made = idle.client.post("/flavors", json={**image, "memory": ROOM.memory + number + 1})
            refused.append(refused_ms(idle, made.json()["id"]))
    print(
        f"P3 value={statistics.median(found):.1f} unit=ms p99={share(found, 0.99):.1f} n={posts} "
        f"hypervisors={HYPERVISORS} guests={guests} refused_p50={statistics.median(refused):.1f} "
        f"refused_max={max(refused):.1f}"
    )


if __name__ == "__main__":
    main()
