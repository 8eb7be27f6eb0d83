"""libvirtd is killed, stands still and is restarted under guests: events flow again, heartbeats never stop."""

from __future__ import annotations

import signal

import pytest

from lochness_lab.hosts.host import Host
from lochness_lab.hosts.laboratory import Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import alive, answers, measured, qemu_pids

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

LIMIT_S = 120


def starts_again(lab: Laboratory, host: Host, guest: str) -> None:
    """A guest that ends is seen and started again: events flow."""
    (pid,) = qemu_pids(host).values()
    host.run("kill", "-KILL", str(pid))
    wait_until(lambda: qemu_pids(host).get(guest, pid) != pid, limit_s=LIMIT_S, what="guest started again")


def beats(host: Host) -> str:
    return host.unit("lochness-heartbeat", "MainPID", "NRestarts")["MainPID"]


@pytest.mark.parametrize("how", ["killed", "restarted", "frozen"])
def test_libvirtd_is(lab: Laboratory, how: str):
    guest = lab.create_guest("steady")
    host = lab.host_of(guest)
    answers(lab, guest)
    pids, heart = qemu_pids(host), beats(host)
    if how == "killed":
        host.signal(signal.SIGKILL, "libvirtd")
    elif how == "restarted":
        host.run("systemctl", "restart", "libvirtd")
    else:
        host.signal(signal.SIGSTOP, "libvirtd")
        wait_until(lambda: status_of(host) != "", limit_s=LIMIT_S, what="word of guestwatch about a libvirt that hangs")
        assert alive(lab, host)
        host.signal(signal.SIGCONT, "libvirtd")
    assert qemu_pids(host) == pids
    answers(lab, guest)
    with measured(f"libvirtd {how}, then a guest's QEMU killed: until the guest is started again"):
        starts_again(lab, host, guest["id"])
    assert alive(lab, host)
    assert beats(host) == heart
    answers(lab, guest)


def status_of(host: Host) -> str:
    """What guestwatch or agent logged about libvirt in the last minutes."""
    found = host.journal("--unit=lochness-guestwatch", "--since=-3min", "--priority=warning")
    return "; ".join(str(entry["MESSAGE"]) for entry in found)
