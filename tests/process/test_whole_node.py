"""Everything that may happen to a node's etcd, libvirtd and daemons: each goes on by itself, and no guest suffers.

One node for all: each test leaves it whole, and fails if it cannot be told whole at its end. docs/testing.md has the
table of daemons and scenarios.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lochness import events
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.process.whole_node import LIMIT_S, TTL_S, WholeNode

# Not what the scenarios take, but what they may take beside much else.
pytestmark = pytest.mark.timeout(300)

#: The first sign of each daemon that etcd or libvirt is not there.
AWAY = {events.PASS_FAILED, events.STORE_LOST}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeNode]:
    """A node whose daemons were all started while neither etcd nor libvirtd was there."""
    for reason in (Machine.available(), Libvirtd.available()):
        assert reason is None, f"a real part is missing, and tests do not skip it: {reason}"
    with (
        EtcdServer(tmp_path_factory.mktemp("etcd")) as etcd,
        Machine(tmp_path_factory.mktemp("own"), "own") as machine,
        WholeNode(tmp_path_factory.mktemp("node"), etcd, Libvirtd(machine)) as node,
    ):
        etcd.stop()
        node.start()
        wait_until(
            lambda: all(AWAY & {entry["event"] for entry in daemon.log} for daemon in node.daemons.values()),
            limit_s=LIMIT_S,
            what="word from each of what is away",
        )
        assert not any(daemon.systemd.is_ready for daemon in node.daemons.values())
        etcd.start()
        node.libvirtd.start()
        try:
            node.wait_until_ready()
            node.wait_until_true()
            node.add_guest()
            yield node
        finally:
            node.libvirtd.stop()


@pytest.fixture
def whole(node: WholeNode) -> Iterator[WholeNode]:
    """The node, whose daemons must all have gone on, as the same processes, and do their work afterwards."""
    before = node.pids()
    yield node
    node.wait_until_true()
    assert node.is_guest_running
    assert node.pids() == before, "a daemon ended"


def test_started_before_etcd_and_libvirtd_they_became_ready_by_themselves(whole):
    for name, daemon in whole.daemons.items():
        assert "Traceback" not in daemon.process.log.read_text(), name


def test_an_etcd_frozen_for_longer_than_the_ttl(whole):
    whole.etcd.freeze()
    lapse(TTL_S + 2)
    assert whole.is_guest_running
    whole.etcd.thaw()


def test_an_etcd_killed_and_restarted_with_its_data(whole):
    status = whole.guest_status
    whole.etcd.kill()
    lapse(1)
    whole.etcd.start()
    whole.wait_until_true()
    assert whole.guest_status == status, "nothing happened to the guest"


def test_an_etcd_that_comes_back_empty_stops_nothing_and_is_filled_again(whole):
    whole.etcd.stop()
    whole.etcd.remove_data()
    whole.etcd.start()
    lapse(3)
    assert whole.wait_for("answer from etcd", lambda: [whole.cluster.heartbeat]) == [None], "nobody is registered"
    assert whole.is_guest_running
    whole.cluster.register()
    whole.wait_until_true()
    assert whole.is_guest_running
    whole.destroy_guest(is_undefined=True)
    whole.add_guest()


def test_every_lease_revoked(whole):
    def leases() -> Any:
        return whole.etcd.request("/v3/lease/leases", {}).json().get("leases", [])

    whole.wait_for("the heartbeat's lease and the controller's", lambda: len(leases()) >= 2)
    for lease in leases():
        whole.etcd.request("/v3/lease/revoke", {"ID": lease["ID"]})


def test_a_libvirtd_killed_and_restarted(whole):
    status, beat = whole.guest_status, whole.cluster.wait_for_heartbeat()
    seen = len(whole.daemons["guestwatch"].logged(events.GUESTWATCH_LIBVIRT_LOST))
    whole.libvirtd.kill()
    whole.wait_for("word of it", lambda: len(whole.daemons["guestwatch"].logged(events.GUESTWATCH_LIBVIRT_LOST)) > seen)
    assert whole.guest_status == status, "missing is not deleted"
    whole.libvirtd.start()
    whole.wait_until_true()
    assert whole.cluster.wait_for_heartbeat().create_revision == beat.create_revision
    assert whole.guest_status == status, "the guest ran on"
    assert_events_are_heard(whole)


def test_a_libvirtd_frozen_for_longer_than_the_ttl_delays_no_heartbeat(whole):
    status, beat = whole.guest_status, whole.cluster.wait_for_heartbeat()
    whole.libvirtd.freeze()
    lapse(TTL_S + 2)
    after = whole.cluster.wait_for_heartbeat()
    assert (after.lease_id, after.create_revision) == (beat.lease_id, beat.create_revision)
    assert whole.guest_status == status, "silence is no news of the guest"
    whole.libvirtd.thaw()
    whole.wait_until_true()
    assert_events_are_heard(whole)


def test_ended_at_random_moments_and_started_again(node):
    seed = time.time_ns()
    chance = random.Random(seed)
    for _ in range(2):
        processes = [*(daemon.process for daemon in node.daemons.values()), node.controller.running]
        chance.shuffle(processes)
        for process in processes:
            lapse(chance.uniform(0, 0.5))
            process.signal(chance.choice((signal.SIGTERM, signal.SIGKILL)))
        for process in processes:
            assert process.wait(LIMIT_S) in (0, -signal.SIGTERM, -signal.SIGKILL), f"seed {seed}"
        node.start()
    node.wait_until_true()
    assert node.is_guest_running, f"seed {seed}"


def assert_events_are_heard(node: WholeNode) -> None:
    """A guest that falls is shown so, and, as it should run, started again."""
    before = node.guest_status
    assert before is not None
    node.destroy_guest()
    node.wait_for(
        "other status", lambda: (now := node.guest_status) is not None and now.mod_revision > before.mod_revision
    )
    node.cluster.wait_for_status(node.guest_id, "running", limit_s=LIMIT_S)


def lapse(duration_s: float) -> None:
    """The time that the scenario is about."""
    until_s = time.monotonic() + duration_s
    wait_until(lambda: time.monotonic() >= until_s, limit_s=duration_s + LIMIT_S, what="end of the lapse")
