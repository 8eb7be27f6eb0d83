"""The network breaks: around a host, around etcd's leader, around the controller, through the middle."""

from __future__ import annotations

import pytest

from lochness_lab.hosts.host import Host
from lochness_lab.hosts.laboratory import Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import alive, answers, created, is_lost, measured, qemu_pids, state

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

LIMIT_S = 120


def hosts_own_etcd_is_away(host: Host) -> bool:
    done = host.run(
        "etcdctl", "--endpoints=http://127.0.0.1:2379", "--command-timeout=3s", "get", "x", is_checked=False
    )
    return done.returncode != 0


def test_a_host_is_cut_off(lab: Laboratory):
    guests = [lab.create_guest(name, "-m", "group=spread") for name in ("g1", "g2", "g3")]
    (guest,) = [guest for guest in guests if lab.host_of(guest).name == "h3"]
    host = lab.host("h3")
    before = qemu_pids(host)
    with measured("network cut of a host until it is seen as not alive"):
        lab.cut("h3")
        wait_until(lambda: is_lost(lab, host), limit_s=LIMIT_S, what="end of h3's heartbeat")
    assert qemu_pids(host) == before  # it runs on, alone
    assert state(lab, guest["id"]) in ("unknown", "running")
    # New guests go elsewhere, and its own is neither moved nor started a second time.
    other = lab.create_guest("new")
    assert lab.host_of(other).name != "h3"
    assert all(guest["id"] not in qemu_pids(peer) for peer in lab.hypervisors if peer is not host)
    with measured("network back until the host is alive"):
        lab.heal()
        wait_until(lambda: alive(lab, host), limit_s=LIMIT_S, what="heartbeat of h3")
    answers(lab, guest)
    assert qemu_pids(host) == before


def test_etcds_leader_is_cut_off(lab: Laboratory):
    leader = lab.etcd_leader()
    standing = [host for host in lab.hypervisors if host is not leader]
    if leader is not lab.management:
        # It counts as alive until its lease ends, and a guest that went there would wait: not what is asked here.
        lab.records("hv", "config", leader.name, "cordoned=1")
    with measured("network cut of etcd's leader until the next guest runs"):
        lab.cut(leader.name)
        if leader is lab.management:  # the operator's command is cut off with it
            wait_until(lambda: hosts_own_etcd_is_away(leader), limit_s=LIMIT_S, what="end of the leader's quorum")
        else:
            guest = lab.create_guest("after")
            assert lab.host_of(guest) in standing
    lab.heal()
    wait_until(lambda: not hosts_own_etcd_is_away(leader), limit_s=LIMIT_S, what="leader as a member again")


def test_the_controller_is_cut_off(lab: Laboratory):
    guest = lab.create_guest("steady")
    host = lab.host_of(guest)
    pids = qemu_pids(host)
    answers(lab, guest)
    lab.cut("m1")
    refused = lab.cli("guest", "create", "--name", "never", "--flavor", "tiny", "--network", "lab-net")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    answers(lab, guest)
    # A guest that ends there is started again: that takes no controller.
    host.run("virsh", "destroy", guest["id"])
    wait_until(lambda: qemu_pids(host).keys() == pids.keys(), limit_s=LIMIT_S, what="guest started again by its node")
    with measured("network of the controller back until a new guest runs"):
        lab.heal()
        wait_until(lambda: created(lab, "again"), limit_s=LIMIT_S, what="guest after the cut")


def test_half_of_the_hosts_are_cut_off(lab: Laboratory):
    guests = [lab.create_guest(name, "-m", "group=spread") for name in ("g1", "g2", "g3")]
    before = {host.name: qemu_pids(host) for host in lab.hypervisors}
    lab.cut("h2", "h3")  # one of three members of etcd: m1 and h1 go on
    wait_until(
        lambda: [alive(lab, lab.host(name)) for name in ("h1", "h2", "h3")] == [True, False, False],
        limit_s=LIMIT_S,
        what="h1 alive, the others not",
    )
    refused = lab.create_guest("fourth")
    assert lab.host_of(refused).name == "h1"
    lab.records("guest", "delete", "fourth", "--wait")
    assert {host.name: qemu_pids(host) for host in lab.hypervisors} == before
    with measured("network back between the halves until all hosts are alive"):
        lab.heal()
        wait_until(lambda: all(alive(lab, host) for host in lab.hypervisors), limit_s=LIMIT_S, what="all alive")
    for guest in guests:
        answers(lab, guest)
    assert {host.name: qemu_pids(host) for host in lab.hypervisors} == before


def test_etcd_is_without_a_quorum(lab: Laboratory):
    guest = lab.create_guest("steady")
    host = lab.host_of(guest)
    pids = qemu_pids(host)
    for name in ("h1", "h2"):
        lab.host(name).run("systemctl", "stop", "etcd")
    assert lab.cli("guest", "list").returncode in (0, 1, 6)  # from the controller's own view, or refused
    refused = lab.cli("guest", "create", "--name", "never", "--flavor", "tiny", "--network", "lab-net")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert qemu_pids(host) == pids
    with measured("etcd's quorum back until a new guest runs"):
        for name in ("h1", "h2"):
            lab.host(name).run("systemctl", "start", "etcd", limit_s=LIMIT_S)
        wait_until(lambda: created(lab, "again"), limit_s=LIMIT_S, what="guest after the loss of the quorum")
    for each in lab.hypervisors:
        states = each.run("systemctl", "is-active", "lochness-heartbeat", "lochness-guestwatch").stdout.split()
        assert states == ["active", "active"]
