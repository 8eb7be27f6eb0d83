"""etcd on whole hosts: slow, gone, compacted while nobody looks, full. Nobody is told lost; all goes on after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lochness import events, keys
from lochness.errors import LochnessError
from lochness_lab.hosts.host import Host
from lochness_lab.hosts.laboratory import CONTROLLER, UNITS, Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import alive, answers, created, measured, qemu_pids, state

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

LIMIT_S = 120
#: Longer than the leases of 30 s: who is not beating by then is seen.
HELD_S = 40
#: What the members of a test that fills them may hold beyond what they do.
QUOTA_MB = 24
_SLOWED = "while :; do kill -STOP $0; sleep 0.3; kill -CONT $0; sleep 0.2; done"
_FILLED = """
head -c 500000 /dev/zero | tr '\\0' x >/tmp/filling
for number in $(seq 1000); do
    ETCDCTL_API=3 etcdctl put junk/$number </tmp/filling >/dev/null || exit 0
done
exit 1
"""


def members(lab: Laboratory) -> list[Host]:
    return [host for host in lab.hosts if host.plan.has_etcd]


def etcdctl(host: Host, *words: str) -> str:
    return host.run("env", "ETCDCTL_API=3", "etcdctl", *words, limit_s=LIMIT_S).stdout


def told_lost(lab: Laboratory) -> list[str]:
    """The hosts that the controller has told to be lost so far."""
    wanted = (events.HYPERVISOR_LOST, events.HYPERVISORS_LOST)
    found = lab.management.journal(f"--unit={CONTROLLER}", *(f"EVENT={name}" for name in wanted))
    return [str(entry["MESSAGE"]) for entry in found]


def all_beat(lab: Laboratory, duration_s: float) -> None:
    """Every host is alive, for so long."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + duration_s:
        assert [host["alive"] for host in lab.records("hv", "list")] == [True] * len(lab.hypervisors)


@contextmanager
def slowed(hosts: list[Host]) -> Iterator[None]:
    """Each etcd stands still for 0.3 s of each half second, each at times of its own."""
    pids = {host.name: host.unit("etcd", "MainPID")["MainPID"] for host in hosts}
    try:
        for host in hosts:
            host.run("systemd-run", "--unit=slowed", "--collect", "sh", "-c", _SLOWED, pids[host.name])
        yield
    finally:
        for host in hosts:
            host.run("systemctl", "stop", "slowed", is_checked=False)
            host.run("kill", "-CONT", pids[host.name])


@contextmanager
def quota(hosts: list[Host], megabytes: int) -> Iterator[None]:
    """The members are restarted with this quota, and after the block with the one they had."""
    path = "etc/default/etcd"
    before = {host.name: (host.files / path).read_text() for host in hosts}
    try:
        for host in hosts:
            (host.files / path).write_text(f"{before[host.name]}ETCD_QUOTA_BACKEND_BYTES={megabytes << 20}\n")
            host.run("systemctl", "restart", "etcd", limit_s=LIMIT_S)
        yield
    finally:
        for host in hosts:
            (host.files / path).write_text(before[host.name])
            host.run("systemctl", "restart", "etcd", limit_s=LIMIT_S)


def test_etcd_is_slow(lab: Laboratory):
    lost = told_lost(lab)
    with measured("a guest created and deleted"):
        lab.create_guest("usual")
        lab.records("guest", "delete", "usual", "--wait")
    began_s = time.monotonic()
    with slowed(members(lab)):
        with measured("every etcd stands still for 0.3 s of each half second: a guest created and deleted"):
            wait_until(lambda: created(lab, "slow"), limit_s=LIMIT_S, what="guest on a slow etcd")
            lab.records("guest", "delete", "slow", "--wait")
        all_beat(lab, HELD_S - (time.monotonic() - began_s))
    assert told_lost(lab) == lost


def test_etcd_is_gone_and_comes_back(lab: Laboratory):
    guest = lab.create_guest("steady")
    host = lab.host_of(guest)
    pids = qemu_pids(host)
    answers(lab, guest)
    lost = told_lost(lab)
    for member in members(lab):
        member.run("systemctl", "stop", "etcd", limit_s=LIMIT_S)
    refused = lab.cli("guest", "create", "--name", "never", "--flavor", "tiny", "--network", "lab-net")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    answers(lab, guest)
    assert qemu_pids(host) == pids
    with measured("every etcd started again until a new guest runs"):
        for member in members(lab):
            member.run("systemctl", "start", "--no-block", "etcd")
        wait_until(lambda: created(lab, "again"), limit_s=LIMIT_S, what="guest after etcd's absence")
    for each in lab.hypervisors:
        assert each.run("systemctl", "is-active", *UNITS).stdout.split() == ["active"] * len(UNITS)
    assert told_lost(lab) == lost


def test_etcd_is_compacted_while_the_controller_is_cut_off(lab: Laboratory):
    host = lab.host("h1")
    key = keys.hypervisor_config(lab.host("h3").plan.hypervisor_id, "cordoned")
    # Its own member is away too: the controller's watch ends, and what happens meanwhile is in no member's history when
    # it is back.
    lab.management.run("systemctl", "stop", "etcd", limit_s=LIMIT_S)
    lab.cut("m1")
    etcdctl(host, "put", key, "1")
    for number in range(20):
        etcdctl(host, "put", f"junk/{number}", "x")
    etcdctl(host, "del", "--prefix", "junk/")
    revision = etcdctl(host, "get", "junk", "-w", "json").split('"revision":')[1].split(",")[0]
    etcdctl(host, "compact", revision)
    with measured("a compaction during the controller's absence, its network back until it has what it missed"):
        lab.heal()
        wait_until(lambda: is_cordoned(lab, "h3"), limit_s=LIMIT_S, what="word of what was changed meanwhile")
    guest = lab.create_guest("after")
    assert lab.host_of(guest).name != "h3"
    lab.management.run("systemctl", "start", "etcd", limit_s=LIMIT_S)
    lab.records("hv", "config", "h3", "cordoned=")
    wait_until(lambda: all(alive(lab, each) for each in lab.hypervisors), limit_s=LIMIT_S, what="all alive")


def test_etcd_is_full(lab: Laboratory):
    guest = lab.create_guest("steady")
    host = lab.host_of(guest)
    pids = qemu_pids(host)
    member = lab.host("h1")
    with quota(members(lab), QUOTA_MB):
        wait_until(lambda: all(alive(lab, each) for each in lab.hypervisors), limit_s=LIMIT_S, what="all alive")
        lost = told_lost(lab)
        member.run("sh", "-c", _FILLED, limit_s=LIMIT_S)
        assert "NOSPACE" in etcdctl(member, "alarm", "list")
        refused = lab.cli("guest", "create", "--name", "never", "--flavor", "tiny", "--network", "lab-net")
        assert refused.returncode != 0
        assert "database space exceeded" in refused.stderr
        # Reads go on, and renewals: nobody is lost, though their leases have long been due.
        all_beat(lab, HELD_S)
        assert state(lab, guest["id"]) == "running"
        assert qemu_pids(host) == pids
        # As docs/operations.md says, after whoever filled it has removed what fills it.
        with measured("etcd full: from its defragmentation until a new guest runs"):
            etcdctl(member, "del", "--prefix", "junk/")
            revision = etcdctl(member, "endpoint", "status", "-w", "json").split('"revision":')[1].split(",")[0]
            etcdctl(member, "compact", revision)
            etcdctl(member, "defrag", "--cluster")
            etcdctl(member, "alarm", "disarm")
            wait_until(lambda: created(lab, "again"), limit_s=LIMIT_S, what="guest after etcd was full")
        assert told_lost(lab) == lost
    for each in lab.hypervisors:
        assert each.run("systemctl", "is-active", *UNITS).stdout.split() == ["active"] * len(UNITS)


def is_cordoned(lab: Laboratory, name: str) -> bool:
    try:
        return bool(lab.record("hv", "show", name).get("cordoned"))
    except LochnessError:
        return False
