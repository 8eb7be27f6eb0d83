"""P5: how long do gets and full lists take, with 1,250 hypervisors and 20,000 guests, at 30 requests a second?

A controller as a process of its own on a real etcd. Requests come at fixed times, whatever became of those before
(open loop): most are gets of one guest or hypervisor, every WHOLE_EVERY-th is a whole list, of guests and of
hypervisors in turn. Meanwhile WRITES_PER_S guests' statuses change, so that no list is the list before. Bodies are
read whole, not compressed.

    make bench-P5            QUICK=1 for 10 s instead of 60 s
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import threading
from pathlib import Path
from typing import Final

from bench.bench_lists import fill
from bench.http_load import Connection, controller, percentile
from lochness import keys
from lochness.model.guest import GuestStatus
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Prefix, Put, Store
from lochness_lab.etcd import EtcdServer

GUESTS: Final = 20_000
HYPERVISORS: Final = 1_250
REQUESTS_PER_S: Final = 30
WHOLE_EVERY: Final = 10
WRITES_PER_S: Final = 20
SECONDS: Final = 60
QUICK_SECONDS: Final = 10
CONNECTIONS: Final = 16


def ids_of(store: Store, path: str) -> list[str]:
    items = store.read(Prefix(path, keys_only=True)).ranges[0]
    return [keys.object_id(item.key, path)[0] for item in items if item.key.endswith("/metadata")]


def write_statuses(store: Store, guests: list[str], ended: threading.Event) -> None:
    """Guests start and stop."""
    while not ended.wait(1 / WRITES_PER_S):
        status = GuestStatus(state=random.choice(("running", "stopped")), since="2026-01-01T00:00:00Z")
        store.commit((), (Put(keys.guest_status(random.choice(guests)), status.to_json()),))


async def measure(url: str, guests: list[str], hypervisors: list[str], seconds: int) -> dict[str, list[float]]:
    """Milliseconds of each kind of request."""
    took: dict[str, list[float]] = {"get": [], "guests": [], "hypervisors": []}
    free: asyncio.Queue[Connection] = asyncio.Queue()
    connections = [Connection(url) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.__aenter__()
        free.put_nowait(connection)

    async def ask(kind: str, path: str) -> None:
        connection = await free.get()
        status, _, took_ms = await connection.ask("GET", path)
        assert status == 200, (status, path)
        took[kind].append(took_ms)
        free.put_nowait(connection)

    for path in ("/guests", "/hypervisors"):  # the connection's first request and the first list are not measured
        await ask("get", path)
    took["get"].clear()
    started_s = asyncio.get_running_loop().time()
    tasks = []
    for number in range(seconds * REQUESTS_PER_S):
        await asyncio.sleep(max(0.0, started_s + number / REQUESTS_PER_S - asyncio.get_running_loop().time()))
        if number % WHOLE_EVERY == 0:
            kind = ("guests", "hypervisors")[number // WHOLE_EVERY % 2]
            tasks.append(asyncio.create_task(ask(kind, f"/{kind}")))
        else:
            path = random.choice((f"/guests/{random.choice(guests)}", f"/hypervisors/{random.choice(hypervisors)}"))
            tasks.append(asyncio.create_task(ask("get", path)))
    await asyncio.gather(*tasks)
    for connection in connections:
        await connection.__aexit__(None, None, None)
    return took


def main() -> None:
    seconds = QUICK_SECONDS if os.environ.get("QUICK") else SECONDS
    with (
        tempfile.TemporaryDirectory(prefix="lochness-p5-") as directory,
        EtcdServer(Path(directory, "etcd")) as server,
        EtcdStore([server.url], timeout_s=30) as store,
    ):
        print(f"filling etcd with {GUESTS} guests on {HYPERVISORS} hypervisors", flush=True)
        fill(store, hypervisors=HYPERVISORS, guests=GUESTS)
        guests, hypervisors = ids_of(store, keys.GUEST_PATH), ids_of(store, keys.HYPERVISOR_PATH)
        ended = threading.Event()
        writer = threading.Thread(target=write_statuses, args=(store, guests, ended))
        with controller(Path(directory), server.url) as url:
            print(f"{REQUESTS_PER_S} requests/s for {seconds} s", flush=True)
            writer.start()
            try:
                took = asyncio.run(measure(url, guests, hypervisors, seconds))
            finally:
                ended.set()
                writer.join()
    figures = {
        "get_p50_ms": percentile(took["get"], 50),
        "get_p99_ms": percentile(took["get"], 99),
        "guests_p99_ms": percentile(took["guests"], 99),
        "hypervisors_p50_ms": percentile(took["hypervisors"], 50),
        "hypervisors_p99_ms": percentile(took["hypervisors"], 99),
    }
    more = " ".join(f"{name}={value:.1f}" for name, value in figures.items())
    print(
        f"P5 value={percentile(took['guests'], 50):.1f} unit=ms {more} requests_per_s={REQUESTS_PER_S} "
        f"guests={GUESTS} hypervisors={HYPERVISORS} writes_per_s={WRITES_PER_S}"
    )


if __name__ == "__main__":
    main()
