"""Hosts lose their power and come back: what should run there does, nothing runs that belongs elsewhere."""

from __future__ import annotations

import pytest

from lochness_lab.hosts.laboratory import Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import alive, answers, is_lost, measured, qemu_pids, state

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

TTL_S = 30
SEEN_LIMIT_S = 120


def test_a_power_cut_and_the_way_back(lab: Laboratory):
    wanted, near, far = (lab.create_guest(name, "-m", "group=spread") for name in ("wanted", "near", "far"))
    host = lab.host_of(wanted)
    others = [other for other in lab.hypervisors if other is not host]
    # Two more guests of that host, which must not be started again.
    for other in others:
        lab.records("hv", "config", other.name, "cordoned=1")
    resting = lab.create_guest("resting")
    deleted = lab.create_guest("deleted")
    for other in others:
        lab.records("hv", "config", other.name, "cordoned=")
    assert lab.host_of(resting) is host
    lab.records("guest", "poweroff", "resting", "--wait")
    for guest in (wanted, near, far):
        answers(lab, guest)
    elsewhere = {other.name: qemu_pids(other) for other in others}

    with measured(f"power cut of a host until it is seen as not alive (lease of {TTL_S} s)"):
        host.cut_power()
        wait_until(lambda: is_lost(lab, host), limit_s=SEEN_LIMIT_S, what=f"end of {host.name}'s heartbeat")
    # Its guests are deleted or not while it is away; nobody starts them elsewhere.
    lab.records("guest", "delete", "deleted")
    assert {other.name: qemu_pids(other) for other in others} == elsewhere
    for guest in (near, far):
        answers(lab, guest)

    with measured("power back until the host is alive and its guests that should run do"):
        lab.power_on(host.name)
        wait_until(lambda: alive(lab, host), limit_s=SEEN_LIMIT_S, what=f"heartbeat of {host.name}")
        wait_until(lambda: state(lab, "wanted") == "running", limit_s=SEEN_LIMIT_S, what="guest that should run")
    answers(lab, wanted)
    assert state(lab, "resting") == "stopped"
    assert resting["id"] not in qemu_pids(host)
    wait_until(lambda: deleted["id"] not in host.domains(), limit_s=SEEN_LIMIT_S, what="end of the deleted guest")
    assert {other.name: qemu_pids(other) for other in others} == elsewhere


def test_a_reboot(lab: Laboratory):
    guest = lab.create_guest("steady")
    host = lab.host_of(guest)
    answers(lab, guest)
    with measured("reboot of a host until its guest answers again"):
        host.shut_down()
        lab.power_on(host.name)
        wait_until(lambda: host.domains().get(guest["id"]) == "running", limit_s=SEEN_LIMIT_S, what="guest that runs")
        answers(lab, guest)
    wait_until(lambda: state(lab, "steady") == "running", limit_s=SEEN_LIMIT_S, what="running in its status")


def test_all_hosts_lose_their_power_at_once(lab: Laboratory):
    guests = [lab.create_guest(name, "-m", "group=spread") for name in ("g1", "g2", "g3")]
    where = {guest["id"]: lab.host_of(guest).name for guest in guests}
    with measured("every host's power cut and back until all guests answer"):
        for host in lab.hosts:
            host.cut_power()
        lab.power_on(*(host.name for host in lab.hosts))
        for guest in guests:
            answers(lab, guest)
    assert {guest["id"]: lab.host_of(guest).name for guest in lab.records("guest", "list")} == where
