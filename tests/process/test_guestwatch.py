"""Guestwatch as a real process: a real etcd, and libvirt's test driver with domains of ours from a file.

What the test driver holds belongs to the process that opened it, so what guestwatch did to it is seen by the statuses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lochness import events, keys
from lochness.errors import DeadlineError
from lochness.identity import GuestID, new_id
from lochness.store.protocol import DeletePrefix
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until
from lochness_node.driver.domain_xml import domain_xml
from lochness_node.driver.protocol import DomainSpec
from lochness_node.fencing import this_machine
from lochness_node.guest_lock import guest_lock
from tests.process.node_daemons import Cluster, NodeProcess

RUNSTATES: Mapping[str, int] = {"running": 1, "paused": 3, "stopped": 5}
RUNSTATE = '<test:runstate xmlns:test="http://libvirt.org/schemas/domain/test/1.0">{}</test:runstate>'
CONFIG = """
[guestwatch]
interval_s = 1
confirm_s = 0.3
backoff_s = 0.3
"""


@pytest.fixture
def cluster(etcd_server: EtcdServer) -> Iterator[Cluster]:
    with Cluster(etcd_server.url) as cluster:
        yield cluster


class Host:
    """What libvirt has when guestwatch first asks it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._domains = ""

    def add(self, guest_id: str, revision: int, state: str) -> None:
        spec = DomainSpec(
            guest_id=GuestID(guest_id),
            binding_revision=revision,
            title="a guest",
            memory_mb=32,
            vcpus=1,
            domain_type="test",
        )
        self._domains += domain_xml(spec).replace("</domain>", RUNSTATE.format(RUNSTATES[state]) + "</domain>")

    def guestwatch(self, cluster: Cluster, *flags: str) -> NodeProcess:
        file = self._directory / f"{new_id()}.xml"
        file.write_text(f"<node>{self._domains}</node>")
        config = self._directory / "node.toml"
        config.write_text(CONFIG)
        return NodeProcess(
            self._directory,
            "guestwatch",
            *cluster.flags,
            *("--config", str(config)),
            *("--libvirt", f"test://{file}"),
            *flags,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_it_writes_what_the_guests_are_and_stops_in_time(cluster, host):
    running, running_revision = cluster.bind("running")
    stopped, stopped_revision = cluster.bind("stopped")
    paused, paused_revision = cluster.bind("paused")
    missing, _ = cluster.bind("running")
    host.add(running, running_revision, "running")
    host.add(stopped, stopped_revision, "stopped")
    host.add(paused, paused_revision, "paused")
    with host.guestwatch(cluster) as daemon:
        daemon.wait_until_ready()
        status = cluster.wait_for_status(running, "running")
        assert (status.hypervisor, status.binding_revision) == (cluster.id, running_revision)
        cluster.wait_for_status(stopped, "stopped")
        cluster.wait_for_status(paused, "paused")
        assert cluster.wait_for_status(missing, "missing").reason == "not created yet"
        assert "STATUS=4 guests: 1 missing, 1 paused, 1 running, 1 stopped" in daemon.systemd.messages
        daemon.assert_stops()


def test_it_starts_what_should_run(cluster, host):
    cluster.beat(machine=this_machine())
    guest_id, revision = cluster.bind("running")
    host.add(guest_id, revision, "stopped")
    with host.guestwatch(cluster) as daemon:
        assert cluster.wait_for_status(guest_id, "running").reason == "booted"
        done = daemon.wait_for_event(events.GUESTWATCH_ACTION_DONE, guest=guest_id)
        assert (done["action"], done["binding_revision"]) == ("start", revision)


def test_without_a_lease_it_starts_nothing_and_with_one_it_does(cluster, host):
    guest_id, revision = cluster.bind("running")
    host.add(guest_id, revision, "stopped")
    with host.guestwatch(cluster) as daemon:
        refused = daemon.wait_for_event(events.GUESTWATCH_ACTION_REFUSED, guest=guest_id)
        assert refused["reason"] == "lease_missing"
        began_s = time.monotonic()
        daemon.process.wait_until(lambda: time.monotonic() > began_s + 2, limit_s=5, what="more refusals")
        assert cluster.wait_for_status(guest_id, "stopped", limit_s=0)
        assert len(daemon.logged(events.GUESTWATCH_ACTION_REFUSED)) == 1
        cluster.beat(machine=this_machine())
        cluster.wait_for_status(guest_id, "running")


def test_it_follows_a_new_binding(cluster, host):
    with host.guestwatch(cluster) as daemon:
        daemon.wait_until_ready()
        guest_id, _ = cluster.bind("running")
        cluster.wait_for_status(guest_id, "missing")


def test_what_was_switched_to_running_is_found_by_the_next_pass(cluster, host):
    cluster.beat(machine=this_machine())
    guest_id, revision = cluster.bind("stopped")
    host.add(guest_id, revision, "stopped")
    with host.guestwatch(cluster):
        cluster.wait_for_status(guest_id, "stopped")
        cluster.want(guest_id, "running")
        cluster.wait_for_status(guest_id, "running")


def test_a_guest_that_somebody_works_on_is_left_to_them(cluster, host, tmp_path):
    cluster.beat(machine=this_machine())
    guest_id, revision = cluster.bind("running")
    host.add(guest_id, revision, "stopped")
    with guest_lock(tmp_path / "lock", guest_id, timeout_s=0), host.guestwatch(cluster):
        cluster.wait_for_status(guest_id, "stopped")
        with pytest.raises(DeadlineError):
            cluster.wait_for_status(guest_id, "running", limit_s=2)
    with host.guestwatch(cluster):
        cluster.wait_for_status(guest_id, "running")


def test_a_deleted_guests_status_does_not_come_back(cluster, host):
    guest_id, revision = cluster.bind("running")
    host.add(guest_id, revision, "running")
    with host.guestwatch(cluster) as daemon:
        cluster.wait_for_status(guest_id, "running")
        cluster.store.commit(
            [], [DeletePrefix(keys.guest_prefix(guest_id)), DeletePrefix(keys.hypervisor_guests(cluster.id))]
        )
        daemon.wait_for_event(events.GUESTWATCH_UNBOUND_DOMAIN_FOUND, guest=guest_id)
        began_s = time.monotonic()
        daemon.process.wait_until(lambda: time.monotonic() > began_s + 1.5, limit_s=5, what="another pass")
        assert cluster.status(guest_id) is None
        assert len(daemon.logged(events.GUESTWATCH_UNBOUND_DOMAIN_FOUND)) == 1


def test_etcd_unreachable_at_start_is_said_once_and_recovered_from(own_etcd, host):
    with Cluster(own_etcd.url) as cluster:
        guest_id, revision = cluster.bind("running")
        host.add(guest_id, revision, "running")
        own_etcd.stop()
        with host.guestwatch(cluster) as daemon:
            daemon.wait_for_event(events.PASS_FAILED)
            assert not daemon.systemd.is_ready
            own_etcd.start()
            daemon.wait_until_ready()
            cluster.wait_for_status(guest_id, "running")
            assert len(daemon.logged(events.PASS_FAILED)) == 1
            daemon.assert_stops()


def test_sigterm_ends_it_in_time_while_etcd_is_frozen(own_etcd, host):
    with Cluster(own_etcd.url) as cluster, host.guestwatch(cluster) as daemon:
        daemon.wait_until_ready()
        own_etcd.freeze()
        daemon.assert_stops()
        own_etcd.thaw()


def test_a_libvirt_that_is_not_there_changes_no_status(cluster, host):
    guest_id, revision = cluster.bind("running")
    host.add(guest_id, revision, "running")
    with host.guestwatch(cluster):
        before = cluster.wait_for_status(guest_id, "running")
    with host.guestwatch(cluster, "--libvirt", "qemu+unix:///system?socket=/nonexistent/libvirt-sock") as daemon:
        daemon.wait_for_event(events.PASS_FAILED, reason="unavailable")
        assert not daemon.systemd.is_ready
        assert cluster.status(guest_id) == before
        daemon.assert_stops()
    wait_until(lambda: not daemon.process.is_running, limit_s=10, what="end")
