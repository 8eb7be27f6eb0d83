"""What do the tests on whole hosts look at and measure?"""

from __future__ import annotations

import signal
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
BACK_LIMIT_S = 60
#: How long a unit whose hang is tested may be silent.
WATCHDOG_S = 5
#: Runs in every guest, and tells on its console which of the first addresses answer it.
REACHES = """#!/bin/sh
while :; do
    for last in 100 101 102; do ping -c 1 -W 1 10.77.0.$last >/dev/null && echo "REACHES 10.77.0.$last"; done
    sleep 1
done
"""


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


def account(lab: Laboratory) -> str:
    """What each host tells of itself: its failed units, the end of its journal, without power of its console."""
    if not lab.is_up:
        return "the laboratory is down"
    lines = []
    for host in lab.hosts:
        try:
            failed = host.run("systemctl", "--failed", "--no-legend", "--plain", is_checked=False).stdout.split("\n")
            journal = host.run("journalctl", "--no-pager", "--lines=40", "--output=short-precise", is_checked=False)
            lines += [f"--- {host.name}, failed units: {'; '.join(filter(None, failed)) or 'none'}", journal.stdout]
        except LochnessError as error:
            lines += [f"--- {host.name}: {error.message}", host.console_tail()]
    return "\n".join(lines)


def is_back(host: Host, unit: str, restarts: int) -> bool:
    """Whether a unit has been restarted more than so many times, and is ready."""
    seen = host.unit(unit, "NRestarts", "ActiveState")
    return int(seen["NRestarts"]) > restarts and seen["ActiveState"] == "active"


def watchdog_ends_a_hang(host: Host, unit: str) -> None:
    """The unit's process stands still; its watchdog, set to WATCHDOG_S, kills it, and it is ready again."""
    folder = f"/run/systemd/system/{unit}.service.d"
    host.run("sh", "-ec", f'mkdir -p {folder}; printf "[Service]\\nWatchdogSec={WATCHDOG_S}\\n" >{folder}/short.conf')
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", unit, limit_s=60)
    try:
        restarts = int(host.unit(unit, "NRestarts")["NRestarts"])
        host.signal(signal.SIGSTOP, unit)
        with measured(f"{unit} stands still, WatchdogSec={WATCHDOG_S}, until it is ready again"):
            wait_until(
                lambda: is_back(host, unit, restarts), limit_s=BACK_LIMIT_S, what=f"{unit} after its hang", poll_s=0.2
            )
        said = host.journal(f"--unit={unit}", "--since=-2min")
        assert any("Watchdog timeout" in str(entry["MESSAGE"]) for entry in said)
    finally:
        host.run("rm", "-r", folder)
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", unit, limit_s=60)


def alive(lab: Laboratory, host: Host) -> bool:
    """Whether the controller takes the host for alive."""
    try:
        return bool(lab.record("hv", "show", host.name)["alive"])
    except LochnessError:
        return False


def is_lost(lab: Laboratory, host: Host) -> bool:
    """Whether the controller says that the host is not alive; a controller that says nothing has not said it."""
    try:
        return not lab.record("hv", "show", host.name)["alive"]
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


def created(lab: Laboratory, name: str) -> bool:
    """Create a guest unless it is there; whether it runs."""
    try:
        if not any(guest["metadata"].get("name") == name for guest in lab.records("guest", "list")):
            lab.create_guest(name)
        return state(lab, name) == "running"
    except LochnessError:
        return False
