"""Real daemons on clocks that jump: nothing is lost, nothing is done that would not have been done."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lochness import events
from lochness_lab.processes import Process
from lochness_lab.waiting import wait_until
from tests.process.node_daemons import CHECKOUT, Cluster

LIMIT_S = 60.0
DAY_S = 86400


class Node:
    """`tests.process.jumping_node` and how to see it at work."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        self.cluster = cluster
        self._jump = directory / "jump"
        self.jump()
        self.process = Process.start(
            [sys.executable, "-m", "tests.process.jumping_node", directory, cluster.url, cluster.id],
            log=directory / "node.log",
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            name="jumping node",
        )

    def jump(self, *, now_s: float = 0, monotonic_s: float = 0) -> None:
        fresh = self._jump.with_suffix(".new")
        fresh.write_text(f"{now_s} {monotonic_s}")
        fresh.rename(self._jump)

    def wait_until_true(self) -> None:
        """A binding that is made now is seen by guestwatch and by resources."""
        guest_id, _ = self.cluster.bind("stopped")
        self.cluster.wait_for_status(guest_id, "missing", limit_s=LIMIT_S)
        wait_until(lambda: self._counts(1), limit_s=LIMIT_S, what="guest in the resources record")
        self.cluster.unbind(guest_id)
        wait_until(lambda: self._counts(0), limit_s=LIMIT_S, what="record without the guest")

    def _counts(self, guests: int) -> bool:
        record = self.cluster.resources
        return record is not None and record.computed_from["guests"] == guests


@pytest.mark.timeout(240)
def test_clocks_that_jump_lose_no_lease_and_no_change(etcd_server, tmp_path):
    with Cluster(etcd_server.url) as cluster:
        node = Node(tmp_path, cluster)
        with node.process:
            beat = cluster.wait_for_heartbeat(LIMIT_S)
            node.wait_until_true()
            for jump in (
                {"now_s": -365 * DAY_S},  # a dead battery
                {"now_s": 30 * DAY_S},
                {"now_s": -DAY_S, "monotonic_s": DAY_S},  # suspended, and a time server put right
            ):
                node.jump(**jump)
                node.wait_until_true()
            after = cluster.wait_for_heartbeat(LIMIT_S)
            assert (after.lease_id, after.create_revision) == (beat.lease_id, beat.create_revision)
            log = node.process.log.read_text()
            for event in (events.PASS_FAILED, events.HEARTBEAT_LEASE_LOST, events.GUESTWATCH_ACTION_DONE):
                assert event not in log, log
            assert "Traceback" not in log
