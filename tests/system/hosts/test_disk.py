"""The disk of a host is full: no guest is placed there, the refusal has the numbers, and what runs goes on."""

from __future__ import annotations

import pytest

from lochness_lab.hosts.laboratory import UNITS, Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import answers, created, measured, qemu_pids

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

LIMIT_S = 180
GUESTS = "/var/lib/lochness/guests"
#: A file system of its own for the guests, little larger than the 256 MB that a host of the laboratory keeps of it.
_SMALL = f"""
mkdir /mnt/small
mount -t tmpfs -o size=300m small /mnt/small
install -d -m 751 -o lochness -g lochness /mnt/small/guests
mount --bind /mnt/small/guests {GUESTS}
"""


def free_mb(lab: Laboratory, name: str) -> int:
    """The room for disks that the host has told."""
    return int(lab.record("hv", "show", name)["available_resources"]["disk"])


def test_a_hosts_disk_is_full(lab: Laboratory):
    host = lab.host("h3")
    for name in ("h1", "h2"):
        lab.records("hv", "config", name, "cordoned=1")
    before_mb = free_mb(lab, "h3")
    host.run("sh", "-ec", _SMALL)
    try:
        wait_until(
            lambda: free_mb(lab, "h3") < before_mb // 10, limit_s=LIMIT_S, poll_s=1, what="word of the small disk"
        )
        guest = lab.create_guest("first")
        answers(lab, guest)
        pids = qemu_pids(host)
        with measured("a host's disk full until the cluster knows"):
            host.run("sh", "-c", "head -c 300M /dev/zero >/mnt/small/filling", is_checked=False)
            wait_until(lambda: free_mb(lab, "h3") == 0, limit_s=LIMIT_S, poll_s=1, what="word of the full disk")
        refused = lab.cli("guest", "create", "--name", "second", "--flavor", "tiny", "--network", "lab-net", "--wait")
        assert refused.returncode != 0
        assert "disk" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert host.run("systemctl", "is-active", *UNITS).stdout.split() == ["active"] * len(UNITS)
        assert qemu_pids(host) == pids
        answers(lab, guest)
        with measured("room on the disk again until a new guest runs"):
            host.run("rm", "/mnt/small/filling")
            wait_until(lambda: free_mb(lab, "h3") > 0, limit_s=LIMIT_S, poll_s=1, what="word of the room")
            wait_until(lambda: created(lab, "third"), limit_s=LIMIT_S, what="guest on the disk with room")
        for name in ("first", "second", "third"):
            lab.records("guest", "delete", name, "--wait")
    finally:
        host.run("sh", "-c", f"umount --lazy {GUESTS}; umount --lazy /mnt/small; rmdir /mnt/small")
