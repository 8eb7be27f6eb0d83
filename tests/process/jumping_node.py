"""The node's three small daemons in one process, on clocks that jump as a file says.

    python -m tests.process.jumping_node DIRECTORY ETCD_URL HYPERVISOR_ID

DIRECTORY/jump holds two numbers: seconds that the time of day, and that the monotonic clock, differ from the machine's.
The latter only grows, as after a machine was suspended.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lochness.clock import SystemClock
from lochness.log import configure_logging
from lochness.store.connect import open_store
from lochness_node.daemon import run_daemons
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.guestwatch.shell import Guestwatch
from lochness_node.heartbeat.shell import Heartbeat
from lochness_node.resources.shell import ResourcesDaemon
from lochness_node.settings import GuestwatchSettings, HeartbeatSettings, ResourcesSettings


class JumpingClock:
    """The machine's clocks with the jumps of `file` in them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._machine = SystemClock()

    def _jump(self) -> tuple[float, float]:
        words = self._file.read_text().split()
        return float(words[0]), float(words[1])

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._jump()[0])

    def monotonic_s(self) -> float:
        return self._machine.monotonic_s() + self._jump()[1]


def main() -> int:
    directory, etcd, id = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    configure_logging("info", identifier="jumping-node")
    clock = JumpingClock(directory / "jump")
    guests, lock = str(directory / "guests"), str(directory / "lock")
    beat = HeartbeatSettings(id=id, ttl_s=30, interval_s=0.5, lock_dir=lock)
    report = ResourcesSettings(id=id, refresh_s=3600, guest_dir=guests)
    watch = GuestwatchSettings(id=id, interval_s=0.5, lock_dir=lock)
    driver = LibvirtDriver("test:///default")
    return run_daemons(
        [
            Heartbeat(beat, open_store(etcd), clock=clock),
            ResourcesDaemon(report, open_store(etcd), driver, clock=clock),
            Guestwatch(watch, open_store(etcd), driver, clock=clock),
        ],
        metrics_listen="off",
    )


if __name__ == "__main__":
    sys.exit(main())
