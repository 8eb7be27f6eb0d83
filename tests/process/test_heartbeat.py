"""The heartbeat as a real process on a real etcd, and everything that may happen to either."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness import events, keys
from lochness.model.hypervisor import HeartbeatRecord
from lochness.store.protocol import Delete, Key, Put
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until
from lochness_node.fencing import this_machine
from tests.process.node_daemons import Cluster, NodeProcess

CONFIG = """
[heartbeat]
ttl_s = {ttl_s}
interval_s = 0.5
request_timeout_s = {request_timeout_s}
allow_short_ttl = true
"""
ELSEWHERE = {"host": "elsewhere", "machine": "another-machine-id"}


@pytest.fixture
def cluster(etcd_server: EtcdServer) -> Iterator[Cluster]:
    with Cluster(etcd_server.url) as cluster:
        yield cluster


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


def write_config(directory: Path, *, ttl_s: int = 10, request_timeout_s: float = 1.0) -> Path:
    path = directory / "node.toml"
    path.write_text(CONFIG.format(ttl_s=ttl_s, request_timeout_s=request_timeout_s))
    return path


def heartbeat(cluster: Cluster, config: Path, **environment: str) -> NodeProcess:
    return NodeProcess(config.parent, "heartbeat", *cluster.flags, "--config", str(config), environment=environment)


def test_it_beats_under_a_lease_and_is_gone_at_once_after_sigterm(cluster, config):
    with heartbeat(cluster, config) as daemon:
        daemon.wait_until_ready()
        found = cluster.heartbeat
        assert found is not None
        record = HeartbeatRecord.from_json(found.value)
        assert found.lease_id != 0
        assert (record.pid, record.ttl_s, record.machine) == (daemon.process.pid, 10, this_machine())
        assert record.versions.keys() == {"lochness", "python", "kernel"}
        daemon.assert_stops()
        assert cluster.heartbeat is None
        assert daemon.logged(events.HEARTBEAT_LEASE_REVOKED)


def test_it_shows_life_to_systemds_watchdog(cluster, config):
    with heartbeat(cluster, config, WATCHDOG_USEC="1000000") as daemon:
        daemon.wait_until_ready()
        wait_until(lambda: daemon.systemd.messages.count("WATCHDOG=1") >= 3, limit_s=10, what="three signs of life")
        assert any(message.startswith("STATUS=beating") for message in daemon.systemd.messages)


def test_it_renews_the_lease_beyond_its_ttl(cluster, tmp_path):
    with heartbeat(cluster, write_config(tmp_path, ttl_s=2, request_timeout_s=0.5)) as daemon:
        lease_id = cluster.wait_for_heartbeat().lease_id
        until_s = time.monotonic() + 5
        wait_until(
            lambda: cluster.wait_for_heartbeat(limit_s=0).lease_id == lease_id and time.monotonic() > until_s,
            limit_s=10,
            what="heartbeat for 5 s",
        )
        assert len(daemon.logged(events.HEARTBEAT_LEASE_GRANTED)) == 1


def test_etcd_unreachable_at_start_is_said_once_and_recovered_from(own_etcd, config):
    with Cluster(own_etcd.url) as cluster:
        own_etcd.stop()
        with heartbeat(cluster, config) as daemon:
            daemon.wait_for_event(events.PASS_FAILED)
            began_s = time.monotonic()
            daemon.process.wait_until(lambda: time.monotonic() > began_s + 3, limit_s=5, what="more failing passes")
            assert not daemon.systemd.is_ready
            assert len(daemon.logged(events.PASS_FAILED)) == 1
            own_etcd.start()
            daemon.wait_until_ready()
            cluster.wait_for_heartbeat()
            assert len(daemon.logged(events.PASS_RECOVERED)) == 1
            daemon.assert_stops()


def test_a_frozen_etcd_costs_one_line_and_not_the_lease(own_etcd, tmp_path):
    config = write_config(tmp_path, ttl_s=30, request_timeout_s=0.5)
    with Cluster(own_etcd.url) as cluster, heartbeat(cluster, config) as daemon:
        daemon.wait_until_ready()
        lease_id = cluster.wait_for_heartbeat().lease_id
        own_etcd.freeze()
        daemon.wait_for_event(events.HEARTBEAT_RENEW_FAILED)
        began_s = time.monotonic()
        daemon.process.wait_until(lambda: time.monotonic() > began_s + 2, limit_s=5, what="more failing beats")
        own_etcd.thaw()
        daemon.wait_for_event(events.HEARTBEAT_RENEW_RECOVERED)
        assert cluster.wait_for_heartbeat().lease_id == lease_id
        assert len(daemon.logged(events.HEARTBEAT_RENEW_FAILED)) == 1
        assert len(daemon.logged(events.PASS_FAILED)) == 1
        assert not daemon.logged(events.HEARTBEAT_LEASE_LOST)
        daemon.assert_stops()


def test_sigterm_ends_it_in_time_while_etcd_is_frozen(own_etcd, config):
    with Cluster(own_etcd.url) as cluster, heartbeat(cluster, config) as daemon:
        daemon.wait_until_ready()
        own_etcd.freeze()
        daemon.assert_stops()
        own_etcd.thaw()


def test_an_etcd_that_was_killed_and_restarted_is_recovered_from(own_etcd, config):
    with Cluster(own_etcd.url) as cluster, heartbeat(cluster, config) as daemon:
        daemon.wait_until_ready()
        own_etcd.kill()
        daemon.wait_for_event(events.PASS_FAILED)
        own_etcd.start()
        daemon.wait_for_event(events.PASS_RECOVERED)
        cluster.wait_for_heartbeat()
        daemon.assert_stops()


def test_a_lost_lease_is_replaced_and_said_once(cluster, config):
    with heartbeat(cluster, config) as daemon:
        lost = cluster.wait_for_heartbeat().lease_id
        cluster.store.revoke_lease(lost)
        cluster.wait_for_heartbeat(other_than=lost)
        assert [entry["lease_id"] for entry in daemon.logged(events.HEARTBEAT_LEASE_LOST)] == [lost]
        daemon.assert_stops()


def test_a_key_that_was_deleted_by_hand_comes_back_under_the_same_lease(cluster, config):
    with heartbeat(cluster, config):
        before = cluster.wait_for_heartbeat()
        cluster.store.commit([], [Delete(keys.hypervisor_heartbeat(cluster.id))])
        assert cluster.wait_for_heartbeat().lease_id == before.lease_id


def test_an_unregistered_hypervisor_is_ready_says_so_once_and_begins_by_itself(etcd_server, config):
    with Cluster(etcd_server.url, registered=False) as cluster, heartbeat(cluster, config) as daemon:
        daemon.wait_until_ready()
        assert any("is not registered" in message for message in daemon.systemd.messages)
        assert cluster.heartbeat is None
        cluster.register()
        cluster.wait_for_heartbeat(limit_s=5)
        assert len(daemon.logged(events.HYPERVISOR_NOT_REGISTERED)) == 1
        assert len(daemon.logged(events.HYPERVISOR_REGISTERED)) == 1
        cluster.deregister()
        wait_until(lambda: cluster.heartbeat is None, limit_s=5, what="end of the heartbeat")
        daemon.assert_stops()


def test_what_a_killed_predecessor_left_is_taken_over_without_a_gap(cluster, config):
    with heartbeat(cluster, config) as killed:
        before = cluster.wait_for_heartbeat()
        killed.process.kill()
    with heartbeat(cluster, config) as daemon:
        after = cluster.wait_for_heartbeat(other_than=before.lease_id)
        assert after.create_revision == before.create_revision, "the key was gone for a moment"
        assert HeartbeatRecord.from_json(after.value).pid == daemon.process.pid


def test_a_second_daemon_on_the_machine_takes_over_and_the_first_ends(cluster, config):
    with heartbeat(cluster, config) as first:
        before = cluster.wait_for_heartbeat()
        with heartbeat(cluster, config) as second:
            after = cluster.wait_for_heartbeat(other_than=before.lease_id)
            assert first.process.wait(10) == os.EX_CONFIG
            assert f"pid {second.process.pid}" in first.wait_for_event(events.DAEMON_MISCONFIGURED)["error"]
            assert cluster.wait_for_heartbeat().lease_id == after.lease_id


def test_another_machines_living_heartbeat_is_not_touched_and_ends_this_one(cluster, config):
    theirs = cluster.beat(ttl_s=60, **ELSEWHERE)
    short = HeartbeatRecord(host="elsewhere", machine="another-machine-id", ttl_s=1).to_json()
    cluster.store.commit([], [Put(keys.hypervisor_heartbeat(cluster.id), short, theirs)])
    with heartbeat(cluster, config) as daemon:
        daemon.wait_for_event(events.HEARTBEAT_AWAITS_OTHER)
        assert daemon.process.wait(10) == os.EX_CONFIG
        assert "elsewhere" in daemon.wait_for_event(events.DAEMON_MISCONFIGURED)["error"]
    found = cluster.heartbeat
    assert found is not None
    assert (found.lease_id, found.value) == (theirs, short)


def test_what_a_dead_machine_left_is_waited_for_and_then_replaced(cluster, config):
    theirs = cluster.beat(ttl_s=60, **ELSEWHERE)
    with heartbeat(cluster, config) as daemon:
        daemon.wait_for_event(events.HEARTBEAT_AWAITS_OTHER)
        cluster.store.revoke_lease(theirs)
        found = cluster.wait_for_heartbeat(other_than=theirs, limit_s=5)
        assert HeartbeatRecord.from_json(found.value).pid == daemon.process.pid


def test_a_reload_changes_the_ttl_without_a_gap(cluster, config):
    with heartbeat(cluster, config) as daemon:
        daemon.wait_until_ready()
        before = cluster.wait_for_heartbeat()
        write_config(config.parent, ttl_s=20)
        daemon.process.signal(signal.SIGHUP)
        after = cluster.wait_for_heartbeat(other_than=before.lease_id)
        assert HeartbeatRecord.from_json(after.value).ttl_s == 20
        assert after.create_revision == before.create_revision
        config.write_text("[heartbeat]\nttl_s = 1")
        daemon.process.signal(signal.SIGHUP)
        daemon.wait_for_event(events.DAEMON_RELOAD_FAILED)
        reading = cluster.store.read(Key(keys.hypervisor_heartbeat(cluster.id))).one()
        assert reading is not None
        assert reading.lease_id == after.lease_id
        daemon.assert_stops()
