"""Whole clusters on this machine. One that cannot be had is a failure, never a skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness_lab.catalog import HYPERVISOR, catalog, first_image, registration
from lochness_lab.cluster import Cluster
from lochness_lab.cluster_kinds import DriverCluster, QemuCluster
from lochness_lab.waiting import wait_until


def furnished(cluster: Cluster) -> None:
    """Enter what a first guest needs and wait until its hypervisor can take it."""
    for words in (*registration(cluster), *catalog(cluster, first_image(cluster))):
        cluster.records(*words)

    def is_able() -> bool:
        hypervisor = cluster.record("hv", "show", HYPERVISOR)
        return bool(hypervisor["alive"] and hypervisor["available_resources"]["memory"])

    wait_until(is_able, limit_s=30, what="hypervisor that is alive and has resources")


@pytest.fixture(scope="module")
def qemu_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Real guests. For tests that leave no guest behind."""
    reason = QemuCluster.available()
    if reason is not None:
        pytest.fail(f"a real part is missing, and tests do not skip it: {reason}")
    yield from _running(QemuCluster(tmp_path_factory.mktemp("qemu")))


@pytest.fixture(scope="module")
def driver_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Libvirt's test driver. For tests that leave no guest behind."""
    yield from _running(DriverCluster(tmp_path_factory.mktemp("driver")))


def _running(cluster: Cluster) -> Iterator[Cluster]:
    with cluster:
        furnished(cluster)
        yield cluster


@pytest.fixture(scope="module", params=["qemu_cluster", "driver_cluster"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Each kind in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Cluster)
    return found


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that does not exist yet, its path short enough for sockets below it."""
    return tmp_path_factory.mktemp("d") / "demo"
