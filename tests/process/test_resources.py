"""The resources daemon as a real process, on a real etcd and libvirt's test driver (one foreign domain of 8 GB)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lochness import events, keys
from lochness.model.resources import HugePages, NumaCell, ResourcesRecord
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Delete, Key, Put
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.resources.facts import Sources
from lochness_node.resources.shell import ResourcesDaemon
from lochness_node.settings import ResourcesSettings
from tests.process.node_daemons import Cluster, NodeProcess

OVERHEAD_MB = 128
CONFIG = f"""
[resources]
reserve_memory_mb = 0
reserve_disk_mb = 0
cpu_overcommit = 100.0
guest_overhead_mb = {OVERHEAD_MB}
"""


@pytest.fixture
def cluster(etcd_server: EtcdServer) -> Iterator[Cluster]:
    with Cluster(etcd_server.url) as cluster:
        yield cluster


def resources(directory: Path, cluster: Cluster, libvirt: str = "") -> NodeProcess:
    config = directory / "node.toml"
    config.write_text(CONFIG)
    uri = libvirt or empty_host(directory)
    return NodeProcess(directory, "resources", *cluster.flags, "--config", str(config), "--libvirt", uri)


def empty_host(directory: Path) -> str:
    """A test driver's host without domains."""
    file = directory / "host.xml"
    file.write_text("<node/>")
    return f"test://{file}"


def wait_for_record(cluster: Cluster, *, guests: int, limit_s: float = 20) -> ResourcesRecord:
    def found() -> ResourcesRecord | None:
        record = cluster.resources
        return record if record and record.computed_from["guests"] == guests else None

    record = wait_until(found, limit_s=limit_s, what=f"record of {guests} guests")
    assert record is not None
    return record


def test_it_writes_what_the_machine_has_and_stops_in_time(cluster, tmp_path):
    with resources(tmp_path, cluster) as daemon:
        daemon.wait_until_ready()
        record = cluster.resources
        assert record is not None
        assert record.total == record.available
        assert record.total.memory == psutil.virtual_memory().total // 2**20
        assert record.total.cpu == 100 * (psutil.cpu_count() or 0)
        assert abs(record.total.disk - psutil.disk_usage(str(tmp_path)).free // 2**20) < 2048
        assert record.guest_overhead_mb == OVERHEAD_MB
        assert (tmp_path / "guests").is_dir()
        daemon.assert_stops()


def test_it_follows_bindings_at_once(cluster, tmp_path):
    with resources(tmp_path, cluster) as daemon:
        daemon.wait_until_ready()
        before = wait_for_record(cluster, guests=0)
        guest_id, _ = cluster.bind(memory=64)
        bound = wait_for_record(cluster, guests=1, limit_s=20)
        assert before.available.memory - bound.available.memory == 64 + OVERHEAD_MB
        assert before.available.cpu - bound.available.cpu == 1
        assert bound.total.memory == before.total.memory
        cluster.unbind(guest_id)
        assert wait_for_record(cluster, guests=0, limit_s=20).available.memory == before.available.memory
        daemon.assert_stops()


def test_a_claim_beyond_what_is_there_leaves_nothing_not_less(cluster, tmp_path):
    cluster.bind(memory=10**9)
    with resources(tmp_path, cluster) as daemon:
        daemon.wait_until_ready()
        assert wait_for_record(cluster, guests=1).available.memory == 0


def test_foreign_domains_are_taken_off_the_total(cluster, tmp_path):
    with resources(tmp_path, cluster, "test:///default") as daemon:
        daemon.wait_until_ready()
        record = wait_for_record(cluster, guests=0)
        assert record.computed_from["unbound_domains"] == 1
        assert record.computed_from["unbound_memory_mb"] == 8192
        expected_mb = psutil.virtual_memory().total // 2**20 - 8192 - OVERHEAD_MB
        assert record.total.memory == max(0, expected_mb)
        assert record.total.cpu == 100 * (psutil.cpu_count() or 0) - record.computed_from["unbound_vcpus"]


def test_an_unregistered_hypervisor_gets_no_record_until_it_is_registered(etcd_server, tmp_path):
    with Cluster(etcd_server.url, registered=False) as cluster, resources(tmp_path, cluster) as daemon:
        daemon.wait_until_ready()
        assert cluster.resources is None
        cluster.register()
        wait_for_record(cluster, guests=0, limit_s=5)
        assert len(daemon.logged(events.HYPERVISOR_NOT_REGISTERED)) == 1


def test_etcd_unreachable_at_start_is_said_once_and_recovered_from(own_etcd, tmp_path):
    with Cluster(own_etcd.url) as cluster:
        own_etcd.stop()
        with resources(tmp_path, cluster) as daemon:
            daemon.wait_for_event(events.PASS_FAILED)
            began_s = time.monotonic()
            daemon.process.wait_until(lambda: time.monotonic() > began_s + 2, limit_s=5, what="more failing passes")
            assert not daemon.systemd.is_ready
            own_etcd.start()
            daemon.wait_until_ready()
            wait_for_record(cluster, guests=0)
            assert len(daemon.logged(events.PASS_FAILED)) == 1
            assert len(daemon.logged(events.PASS_RECOVERED)) == 1
            daemon.assert_stops()


def test_a_libvirt_that_is_not_there_is_said_once_and_nothing_is_written(cluster, tmp_path):
    with resources(tmp_path, cluster, "qemu+unix:///system?socket=/nonexistent/libvirt-sock") as daemon:
        daemon.wait_for_event(events.PASS_FAILED)
        assert len(daemon.logged(events.RESOURCES_FIGURE_STALE)) == 1
        assert cluster.resources is None
        daemon.assert_stops()


# -- the daemon's passes, one by one


class Host:
    """The daemon on a store of its own, on figures that the test sets, and a clock that the test moves."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore()
        self.now_s = 0.0
        self.memory_mb = 10000
        self.driver = LibvirtDriver("test:///default")
        self.is_libvirt_there = True
        self.cells: tuple[NumaCell, ...] = ()
        settings = ResourcesSettings(
            id="hv", guest_dir=str(directory), guest_overhead_mb=0, reserve_memory_mb=0, reserve_disk_mb=0
        )
        sources = Sources(
            memory_mb=lambda: self.memory_mb,
            cpus=lambda: 4,
            disk_free_mb=self._free_mb,
            guest_disks_mb=lambda _directory: {},
            domains=self._domains,
            cells=lambda: self.cells,
        )
        self.daemon = ResourcesDaemon(settings, self.store, self.driver, sources=sources, clock=self)
        self.store.commit([], [Put(keys.hypervisor("hv"), b"{}")])

    def _free_mb(self, directory: Path) -> int:
        return 500 if directory == Path("/srv/guests") else 1000

    def _domains(self):
        return self.driver.domains() if self.is_libvirt_there else LibvirtDriver("nonsense:///").domains()

    def monotonic_s(self) -> float:
        return self.now_s

    def now(self):
        raise NotImplementedError

    @property
    def written(self) -> tuple[int, int]:
        """Memory that is offered, and the revision at which that was written."""
        reading = self.store.read(Key(keys.hypervisor_resources("hv"))).one()
        assert reading is not None
        return ResourcesRecord.from_json(reading.value).total.memory, reading.mod_revision


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.daemon.stop()


def test_it_writes_on_change_and_each_refresh_only(host):
    host.daemon.run_pass()
    memory_mb, revision = host.written
    assert memory_mb == 10000 - 8192
    host.now_s = 40
    host.daemon.run_pass()
    assert host.written == (memory_mb, revision)
    host.memory_mb += 5
    host.daemon.run_pass()
    assert host.written == (memory_mb + 5, revision + 1)
    host.now_s = 100
    host.daemon.run_pass()
    assert host.written == (memory_mb + 5, revision + 2)


def test_without_libvirt_the_last_figure_stays_in_use(host):
    host.daemon.run_pass()
    host.is_libvirt_there = False
    host.memory_mb += 5
    report = host.daemon.run_pass()
    assert host.written[0] == 10005 - 8192
    assert "libvirt does not answer" in report.status
    assert report.look_again_s is not None


def test_a_hypervisor_that_was_removed_is_not_written_for(host):
    host.store.commit([], [Delete(keys.hypervisor("hv"))])
    host.daemon.run_pass()
    assert host.store.read(Key(keys.hypervisor_resources("hv"))).one() is None


def record_of(host: Host) -> ResourcesRecord:
    host.daemon.run_pass()
    found = host.store.read(Key(keys.hypervisor_resources("hv"))).one()
    assert found is not None
    return ResourcesRecord.from_json(found.value)


def test_the_guest_disk_directory_of_this_hypervisor_in_etcd_is_the_one_that_counts(host):
    key = keys.hypervisor_config("hv", "guestDiskDir")
    assert record_of(host).total.disk == 1000
    host.store.commit([], [Put(key, b"/srv/guests")])
    assert record_of(host).total.disk == 500
    host.store.commit([], [Put(key, b"guests")])
    assert record_of(host).total.disk == 1000, "not absolute: the configured one is used"
    host.store.commit([], [Delete(key)])
    assert record_of(host).total.disk == 1000


def test_huge_pages_and_cells_are_reported_and_not_offered(host):
    before = record_of(host).total.memory
    pages = HugePages(size_kb=2048, total=100, free=90)
    host.cells = (NumaCell(cell=0, memory=10000, cpus="0-3", huge_pages=(pages,)),)
    record = record_of(host)
    assert record.total.memory == before - 200
    assert record.numa_cells == host.cells
