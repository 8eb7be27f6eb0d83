"""What do the tests on whole hosts look at and measure?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lochness.errors import LochnessError
from lochness_lab.hosts.host import Host
from lochness_lab.hosts.laboratory import Laboratory
from lochness_lab.waiting import wait_until

FIGURES: list[str] = []
RECOVERY_LIMIT_S = 120


def recover(lab: Laboratory) -> None:
    """Every host on, on the network, open for guests, alive."""
    lab.heal()
    for host in lab.hosts:
        if not host.is_on:
            host.start()
    lab.wait_until_ready()
    wait_until(lambda: all(alive(lab, host) for host in lab.hypervisors), limit_s=RECOVERY_LIMIT_S, what="all alive")
    for host in lab.hypervisors:
        lab.records("hv", "config", host.name, "cordoned=")


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Tell at the end how long the block took."""
    started_s = time.monotonic()
    yield
    FIGURES.append(f"{time.monotonic() - started_s:7.1f} s  {what}")


def alive(lab: Laboratory, host: Host) -> bool:
    """Whether the controller takes the host for alive."""
    try:
        return bool(lab.record("hv", "show", host.name)["alive"])
    except LochnessError:
        return False


def state(lab: Laboratory, guest: str) -> str:
    """The guest's state as the controller tells it, "" when it cannot be asked."""
    try:
        return str(lab.record("guest", "show", guest).get("status", {}).get("state", ""))
    except LochnessError:
        return ""


def qemu_pids(host: Host) -> dict[str, int]:
    """The guests that run on a host, and the pids of their QEMUs there."""
    listed = host.run("sh", "-c", "for f in /run/libvirt/qemu/*-*.pid; do echo $f $(cat $f); done", is_checked=False)
    words = [line.split() for line in listed.stdout.splitlines()]
    return {Path(path).stem: int(pid) for path, pid in (pair for pair in words if len(pair) == 2)}


def console(lab: Laboratory, guest: dict[str, Any]) -> str:
    """What the guest has written to its console so far."""
    log = lab.host_of(guest).files / "var/lib/lochness/guests" / guest["id"] / "console.log"
    try:
        text: str = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return text


def answers(lab: Laboratory, guest: dict[str, Any], limit_s: float = 120) -> None:
    """Return when the guest answers a ping."""
    wait_until(lambda: lab.pings(guest["ip"], 1), limit_s=limit_s, what=f"answer to a ping of {guest['ip']}")


def says(lab: Laboratory, guest: dict[str, Any], words: list[str]) -> bool:
    """Whether all of these words are on the guest's console."""
    text = console(lab, guest)
    return all(word in text for word in words)
