"""R7 in small: a guest that cannot be created is counted, and the soak goes on. `make soak` is the whole of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.r7_soak import Soak
from lochness_lab.cluster_kinds import DriverCluster

MINUTES = 0.02


@pytest.mark.timeout(240)
def test_a_guest_that_cannot_be_created_is_counted_and_the_soak_goes_on(tmp_path: Path):
    with DriverCluster(tmp_path / "c") as cluster:
        soak = Soak(cluster)  # and no flavor that a guest could have
        soak.work(MINUTES)
        ((reason, times),) = soak.failures.items()
        assert times > 0
        assert "flavor 'tiny' does not exist" in reason
        assert soak.guests == 0
        assert len(soak.series["etcd db in use"].values) > 1  # measured to the end
        soak.finish()
        assert soak.violations == [f"failed {times} times: {reason}"]
