"""Guestwatch as a real process beside a real libvirtd with QEMU guests, and what may happen to both."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness import events, keys
from lochness.errors import LochnessError
from lochness.identity import GuestID
from lochness.store.protocol import Key
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.waiting import wait_until
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import DomainSpec, DomainState
from lochness_node.fencing import this_machine
from tests.process.node_daemons import Cluster, NodeProcess

# Nothing below waits for the cadence: what is noticed, is noticed by an event.
CONFIG = """
[guestwatch]
interval_s = 300
confirm_s = 0.3
backoff_s = 0.3
"""
NOTICE_LIMIT_S = 20.0


@pytest.fixture
def cluster(etcd_server: EtcdServer) -> Iterator[Cluster]:
    with Cluster(etcd_server.url) as cluster:
        cluster.beat(machine=this_machine())
        yield cluster


@pytest.fixture
def driver(own_libvirtd: Libvirtd) -> Iterator[LibvirtDriver]:
    driver = LibvirtDriver(own_libvirtd.uri_outside)
    yield driver
    driver.close()


def guestwatch(directory: Path, cluster: Cluster, libvirtd: Libvirtd) -> NodeProcess:
    config = directory / "node.toml"
    config.write_text(CONFIG)
    return NodeProcess(
        directory, "guestwatch", *cluster.flags, "--config", str(config), "--libvirt", libvirtd.uri_outside
    )


def made(cluster: Cluster, driver: LibvirtDriver, power: str = "running") -> GuestID:
    """A guest that boots nothing, defined and off, as the agent leaves it before its first start."""
    id, revision = cluster.bind(power)
    spec = DomainSpec(
        guest_id=GuestID(id),
        binding_revision=revision,
        title="",
        memory_mb=32,
        vcpus=1,
        domain_type="qemu",
    )
    driver.define(spec)
    return spec.guest_id


def _qemu_pid(libvirtd: Libvirtd) -> int:
    (pid,) = [pid for pid in libvirtd.machine.pids() if b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def test_a_guest_that_should_run_is_started_and_a_killed_one_started_again(cluster, driver, own_libvirtd, tmp_path):
    guest_id = made(cluster, driver)
    with guestwatch(tmp_path, cluster, own_libvirtd) as daemon:
        cluster.wait_for_status(guest_id, "running")
        os.kill(_qemu_pid(own_libvirtd), signal.SIGKILL)
        crashed = cluster.wait_for_status(guest_id, "crashed", limit_s=NOTICE_LIMIT_S)
        assert crashed.reason == "crashed"
        cluster.wait_for_status(guest_id, "running", limit_s=NOTICE_LIMIT_S)
        assert len(daemon.logged(events.GUESTWATCH_ACTION_DONE)) == 2
        daemon.assert_stops()
        assert driver.domain(guest_id).state is DomainState.RUNNING


def test_a_guest_that_was_stopped_on_purpose_stays_off(cluster, driver, own_libvirtd, tmp_path):
    guest_id = made(cluster, driver)
    with guestwatch(tmp_path, cluster, own_libvirtd) as daemon:
        cluster.wait_for_status(guest_id, "running")
        cluster.want(guest_id, "stopped")
        driver.destroy(guest_id)
        cluster.wait_for_status(guest_id, "stopped", limit_s=NOTICE_LIMIT_S)
        began_s = time.monotonic()
        daemon.process.wait_until(lambda: time.monotonic() > began_s + 2, limit_s=5, what="time for a mistake")
        assert driver.domain(guest_id).state is DomainState.STOPPED


def test_a_restarted_libvirtd_is_reconnected_and_its_events_are_heard_again(cluster, driver, own_libvirtd, tmp_path):
    guest_id = made(cluster, driver)
    with guestwatch(tmp_path, cluster, own_libvirtd) as daemon:
        cluster.wait_for_status(guest_id, "running")
        key = Key(keys.guest_status(guest_id))
        before = cluster.store.read(key).one()
        own_libvirtd.stop()
        daemon.wait_for_event(events.GUESTWATCH_LIBVIRT_LOST)
        assert cluster.store.read(key).one() == before, "missing is not deleted"
        own_libvirtd.start()
        daemon.wait_for_event(events.GUESTWATCH_LIBVIRT_RECOVERED, limit_s=10)
        assert cluster.store.read(key).one() == before, "the guest ran on"
        wait_until(lambda: _is_running(driver, guest_id), limit_s=10, what="reconnected test")
        cluster.want(guest_id, "stopped")
        driver.destroy(guest_id)
        cluster.wait_for_status(guest_id, "stopped", limit_s=NOTICE_LIMIT_S)
        assert len(daemon.logged(events.GUESTWATCH_LIBVIRT_LOST)) == 1
        daemon.assert_stops()


def _is_running(driver: LibvirtDriver, guest_id: GuestID) -> bool:
    try:
        return driver.domain(guest_id).state is DomainState.RUNNING
    except LochnessError:
        return False


def test_sigterm_ends_it_in_time_while_libvirtd_is_frozen(cluster, driver, own_libvirtd, tmp_path):
    guest_id = made(cluster, driver, "stopped")
    with guestwatch(tmp_path, cluster, own_libvirtd) as daemon:
        cluster.wait_for_status(guest_id, "stopped")
        own_libvirtd.freeze()
        cluster.unbind(guest_id)  # makes it look, and hang
        daemon.assert_stops()
        own_libvirtd.thaw()
