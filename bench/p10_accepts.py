"""P10: how many POST /guests are accepted a second, each answered only after its guest and job are durable?

A controller as a process of its own on a real etcd, CLIENTS keep-alive connections from one other process, each asking
again as soon as it is answered. The controller does its other work meanwhile: it takes the jobs up and, there being no
hypervisor, ends each with its reason. After the run every accepted guest and job must be in etcd.

The baseline of the same run: the same keys written by transactions as large as etcd takes them, by one writer.

    make bench-P10           QUICK=1 for 5 s instead of 20 s, three times
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec

from bench.http_load import Connection, controller, percentile
from lochness import keys
from lochness.ids import new_id
from lochness.model.guest import GuestRecord
from lochness.model.job import SELECT_HYPERVISOR, JobRecord
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import MAX_TRANSACTION_OPS, Prefix, Store
from lochness.transactions import create_guest, joined
from lochness_lab.etcd import EtcdServer

CLIENTS: Final = 32
SECONDS: Final = 20
QUICK_SECONDS: Final = 5
ROUNDS: Final = 3
BASELINE_GUESTS: Final = 4_000


async def client(url: str, body: bytes, until_s: float, took: list[float], accepted: list[str]) -> None:
    async with Connection(url) as connection:
        while time.perf_counter() < until_s:
            status, answer, took_ms = await connection.ask("POST", "/guests", body)
            assert status == 202, (status, answer)
            took.append(took_ms)
            accepted.append(answer[7:43].decode())  # {"id":"...


async def round_of(url: str, body: bytes, seconds: int) -> tuple[float, list[float], list[str]]:
    """Accepted a second, milliseconds of each, and the guests' ids."""
    took: list[float] = []
    accepted: list[str] = []
    started_s = time.perf_counter()
    await asyncio.gather(*(client(url, body, started_s + seconds, took, accepted) for _ in range(CLIENTS)))
    return len(took) / (time.perf_counter() - started_s), took, accepted


def ceiling(store: Store, flavor: str, network: str) -> float:
    """Guests a second that a loop of the largest transactions writes."""
    per_commit = MAX_TRANSACTION_OPS // 3
    guests = [
        GuestRecord(id=new_id(), flavor=flavor, network=network, mac="02:00:00:00:00:01")
        for _ in range(BASELINE_GUESTS)
    ]
    jobs = [
        JobRecord(
            id=new_id(), action=SELECT_HYPERVISOR, guest=guest.id, status="error", finished_at="2026-01-01T00:00:00Z"
        )
        for guest in guests
    ]
    started_s = time.perf_counter()
    for start in range(0, BASELINE_GUESTS, per_commit):
        pairs = zip(guests[start : start + per_commit], jobs[start : start + per_commit], strict=True)
        joined(create_guest(guest, job) for guest, job in pairs).commit(store)
    return BASELINE_GUESTS / (time.perf_counter() - started_s)


def lost(store: Store, accepted: list[str]) -> int:
    """How many of these guests, or of their jobs, are not in etcd."""
    guests = {keys.object_id(item.key, keys.GUEST_PATH)[0] for item in store.read(Prefix(keys.GUEST_PATH)).ranges[0]}
    jobs = {JobRecord.from_json(item.value).guest for item in store.read(Prefix(keys.JOB_PATH)).ranges[0]}
    return len(set(accepted) - guests) + len(set(accepted) - jobs)


def main() -> None:
    seconds, rounds = (QUICK_SECONDS, 1) if os.environ.get("QUICK") else (SECONDS, ROUNDS)
    rates: list[float] = []
    took: list[float] = []
    accepted: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="lochness-p10-") as directory,
        EtcdServer(Path(directory, "etcd")) as server,
        EtcdStore([server.url], timeout_s=60) as store,
    ):
        with controller(Path(directory), server.url) as url, httpx.Client(base_url=url, trust_env=False) as api:
            image = api.post("/images", json={"source": "https://images.example.org/a.qcow2"}).json()["id"]
            flavor = api.post("/flavors", json={"image": image, "memory": 512, "disk": 1024, "cpu": 1}).json()["id"]
            network = api.post("/networks", json={}).json()["id"]
            body = msgspec.json.encode({"flavor": flavor, "network": network, "metadata": {"name": "bench"}})
            asyncio.run(round_of(url, body, 1))  # the first connections and imports are not measured
            for number in range(1, rounds + 1):
                rate, each_ms, ids = asyncio.run(round_of(url, body, seconds))
                print(f"round {number} of {rounds}: {rate:.0f} accepted/s", flush=True)
                rates.append(rate)
                took += each_ms
                accepted += ids
        missing = lost(store, accepted)
        baseline = ceiling(store, flavor, network)
    rate = statistics.median(rates)
    print(
        f"P10 value={rate:.0f} unit=accepted/s p50_ms={percentile(took, 50):.1f} p99_ms={percentile(took, 99):.1f} "
        f"clients={CLIENTS} n={len(accepted)} lost={missing} baseline={baseline:.0f} ratio={rate / baseline:.2f}"
    )
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
