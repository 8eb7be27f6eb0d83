"""What of whole hosts is tried at every `make test`: the packages, systemd, two guests, a hang, a power cut.

Two hypervisors and a management host that boot. Everything at length, with more that fails, is in `make test-system`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from lochness_lab.hosts.laboratory import CONTROLLER, UNITS, Laboratory
from lochness_lab.hosts.roots import HYPERVISOR_PACKAGES, MANAGEMENT_PACKAGES
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import (
    REACHES,
    alive,
    answers,
    is_lost,
    measured,
    qemu_pids,
    says,
    state,
    watchdog_ends_a_hang,
)

pytestmark = [pytest.mark.brief, pytest.mark.timeout(900)]

LIMIT_S = 240
ASKED_EVERY_S = 0.5


@pytest.fixture(scope="module")
def guests(small_lab: Laboratory) -> list[dict[str, Any]]:
    """A running guest on each of the two hypervisors. For tests that leave both running there."""
    options = ("-m", "group=spread", "-m", f"user-data={REACHES}")
    with (
        measured("two guests created at the same time until both run"),
        ThreadPoolExecutor(max_workers=2) as threads,
    ):
        return list(threads.map(lambda name: small_lab.create_guest(name, *options), ("g1", "g2")))


def test_the_packages_are_installed_and_systemd_has_every_unit_ready(small_lab: Laboratory):
    for host in small_lab.hosts:
        names = HYPERVISOR_PACKAGES if host.plan.is_hypervisor else MANAGEMENT_PACKAGES
        units = UNITS if host.plan.is_hypervisor else (CONTROLLER,)
        statuses = host.run("dpkg-query", "--show", "--showformat=${db:Status-Status}\n", *names).stdout.split()
        assert statuses == ["installed"] * len(names)
        for unit in units:
            seen = host.unit(unit, "ActiveState", "Type", "FragmentPath", "User")
            assert seen["ActiveState"] == "active"
            assert seen["Type"] == "notify"
            assert seen["FragmentPath"] == f"/lib/systemd/system/{unit}.service"
            assert host.journal(f"--unit={unit}", "EVENT=daemon.ready")


def test_guests_on_two_hosts_reach_each_other(small_lab: Laboratory, guests: list[dict[str, Any]]):
    assert {small_lab.host_of(guest).name for guest in guests} == {"h1", "h2"}
    with measured("both have booted and reach each other over the hosts"):
        for guest in guests:
            words = [f"REACHES {other['ip']}" for other in guests]
            wait_until(partial(says, small_lab, guest, words), limit_s=LIMIT_S, what=f"word of {guest['ip']} of both")


def test_the_watchdog_ends_a_hang_and_the_guest_runs_on(small_lab: Laboratory, guests: list[dict[str, Any]]):
    host = small_lab.host("h1")
    before = qemu_pids(host)
    assert len(before) == 1
    watchdog_ends_a_hang(host, "lochness-guestwatch")
    assert qemu_pids(host) == before


def test_a_power_cut_and_the_way_back(small_lab: Laboratory, guests: list[dict[str, Any]]):
    (near, far) = sorted(guests, key=lambda guest: small_lab.host_of(guest).name)
    standing, host = small_lab.host("h1"), small_lab.host("h2")
    before = qemu_pids(standing)
    answers(small_lab, far, LIMIT_S)
    with measured("power cut of a host until it is seen as not alive (lease of 30 s)"):
        host.cut_power()
        assert not small_lab.pings(far["ip"], 1)
        wait_until(lambda: is_lost(small_lab, host), limit_s=LIMIT_S, what="end of its heartbeat", poll_s=ASKED_EVERY_S)
    answers(small_lab, near, LIMIT_S)
    with measured("power back until the host is alive and its guest answers"):
        small_lab.power_on(host.name)
        answers(small_lab, far, LIMIT_S)
        wait_until(lambda: alive(small_lab, host), limit_s=LIMIT_S, what="its heartbeat", poll_s=ASKED_EVERY_S)
    wait_until(
        lambda: state(small_lab, far["id"]) == "running", limit_s=LIMIT_S, what="word of it", poll_s=ASKED_EVERY_S
    )
    # Each runs once, where it was: the guest of the host that was away was not started a second time.
    assert qemu_pids(host).keys() == {far["id"]}
    assert qemu_pids(standing) == before
