"""How does the page bear 1,000 hosts and 20,000 guests? In a real Chromium, on a controller and an etcd of its own.

Seconds from opening the page to the first rows, from a change in the store to its sight, from a key pressed in the
filter to its result; and the page's memory.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.bench_lists import GUESTS, HYPERVISORS, fill
from lochness import keys
from lochness.model.guest import GuestRecord, GuestStatus
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Prefix, Put
from lochness_lab.browser import Browser
from lochness_lab.etcd import EtcdServer
from tests.contract.api.running import RunningController

ROUNDS: Final = 5

#: Types a word into the filter and waits until the browser has drawn; milliseconds.
_FILTER: Final = """
const done = arguments[arguments.length - 1];
const filter = document.getElementById('guests-filter');
const began = performance.now();
filter.value = arguments[0];
filter.dispatchEvent(new Event('input'));
requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
"""


def changes_s(browser: Browser, store: EtcdStore) -> list[float]:
    """Seconds from a guest's new state to its sight."""
    item = store.read(Prefix(keys.GUEST_PATH)).ranges[0][0]
    guest = GuestRecord.from_json(item.value)
    browser.run("const f = document.getElementById('guests-filter'); f.value = arguments[0];", guest.id)
    browser.run("document.getElementById('guests-filter').dispatchEvent(new Event('input'))")
    took = []
    for number in range(ROUNDS):
        status = GuestStatus(state="crashed", reason=f"reason {number}", hypervisor=guest.hypervisor)
        started_s = time.perf_counter()
        heart = Put(keys.hypervisor_heartbeat(guest.hypervisor), b"{}")
        store.commit((), ((Put(keys.guest_status(guest.id), status.to_json())), *((heart,) if not number else ())))
        browser.wait_for("#guests tbody", f"reason {number}")
        took.append(time.perf_counter() - started_s)
    return took


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="lochness-page-") as directory,
        EtcdServer(Path(directory) / "etcd") as server,
        EtcdStore([server.url], timeout_s=30) as store,
        Browser(Path(directory) / "browser") as browser,
    ):
        fill(store)
        controller = RunningController(server.url)
        try:
            opened = []
            for _ in range(ROUNDS):
                started_s = time.perf_counter()
                browser.driver.get(controller.url)
                browser.wait_for("#guests .shown", f"{GUESTS:,} guests")
                opened.append(time.perf_counter() - started_s)
            changed = changes_s(browser, store)
            filtered = [browser.driver.execute_async_script(_FILTER, f"guest-1{number}") for number in range(ROUNDS)]
            rows = browser.run("return document.querySelectorAll('tbody tr').length")
            heap_mb = browser.run("return performance.memory.usedJSHeapSize / 1048576")
        finally:
            controller.stop()
    print(
        f"page hypervisors={HYPERVISORS} guests={GUESTS} open_s={statistics.median(opened):.2f} "
        f"change_s={statistics.median(changed):.2f} filter_ms={statistics.median(filtered):.0f} "
        f"rows={rows} heap_mb={heap_mb:.0f}"
    )


if __name__ == "__main__":
    main()
