"""Guests over three hosts: they run, reach each other, and go without a trace."""

from __future__ import annotations

from functools import partial

import pytest

from lochness_lab.hosts.laboratory import Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import REACHES, answers, measured, says

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

BOOT_LIMIT_S = 120


def test_guests_on_three_hosts_reach_each_other(lab: Laboratory):
    names = ("g1", "g2", "g3")
    options = ("-m", "group=spread", "-m", f"user-data={REACHES}")
    with measured("three guests created one after the other until each runs"):
        guests = [lab.create_guest(name, *options) for name in names]
    assert {lab.host_of(guest).name for guest in guests} == {"h1", "h2", "h3"}
    assert {guest["ip"] for guest in guests} == {"10.77.0.100", "10.77.0.101", "10.77.0.102"}
    with measured("the three have booted and reach each other over the hosts"):
        for guest in guests:
            words = [f"REACHES {other['ip']}" for other in guests]
            reached = partial(says, lab, guest, words)
            wait_until(reached, limit_s=BOOT_LIMIT_S, what=f"word of {guest['ip']} that it reaches all")
    for guest in guests:
        answers(lab, guest)


def test_no_more_addresses_is_a_refusal_with_numbers(lab: Laboratory):
    lab.record("network", "create", "--name", "small")
    limits = ("--cidr", "10.77.1.0/24", "--start", "10.77.1.10", "--end", "10.77.1.10", "--gateway", "10.77.1.1")
    lab.record("subnet", "create", "--name", "one-address", "--network", "small", *limits)
    for host in lab.hypervisors:
        lab.records("hv", "subnets", host.name, "one-address=br0")
    lab.records("guest", "create", "--name", "first", "--flavor", "tiny", "--network", "small", "--wait")
    refused = lab.cli("guest", "create", "--name", "second", "--flavor", "tiny", "--network", "small", "--wait")
    assert refused.returncode == 1
    assert "no_address" in refused.stderr or "address" in refused.stderr
    assert "Traceback" not in refused.stderr
    lab.records("guest", "delete", "first", "--wait")
    lab.records("guest", "create", "--name", "third", "--flavor", "tiny", "--network", "small", "--wait")
    for name in ("second", "third"):
        lab.records("guest", "delete", name, "--wait")
    for host in lab.hypervisors:
        lab.cli("hv", "subnets", host.name, "one-address=")
