"""The units on a real systemd: restarts, crashes and hangs are mended, guests feel none of it, the journal tells it."""

from __future__ import annotations

import signal
from functools import partial

import pytest

from lochness_lab.hosts.host import Host
from lochness_lab.hosts.laboratory import CONTROLLER, UNITS, Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import alive, answers, measured, qemu_pids

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

BACK_LIMIT_S = 60
WATCHDOG_S = 5


def is_back(host: Host, unit: str, restarts: int) -> bool:
    seen = host.unit(unit, "NRestarts", "ActiveState")
    return int(seen["NRestarts"]) > restarts and seen["ActiveState"] == "active"


def test_units_are_restarted_and_killed_under_a_running_guest(lab: Laboratory):
    guest = lab.create_guest("steady")
    answers(lab, guest)
    host = lab.host_of(guest)
    before = qemu_pids(host)
    assert len(before) == 1
    host.run("systemctl", "restart", *(f"{unit}.service" for unit in UNITS), limit_s=120)
    for unit in UNITS:
        with measured(f"{unit} killed (SIGKILL) until it is ready again"):
            restarts = int(host.unit(unit, "NRestarts")["NRestarts"])
            host.signal(signal.SIGKILL, unit)
            wait_until(partial(is_back, host, unit, restarts), limit_s=BACK_LIMIT_S, what=f"{unit} after a SIGKILL")
    host.run("systemctl", "stop", "lochness.target", limit_s=60)
    answers(lab, guest)
    host.run("systemctl", "start", "lochness.target", limit_s=120)
    lab.wait_until_ready([host])
    assert qemu_pids(host) == before
    answers(lab, guest)
    wait_until(lambda: alive(lab, host), limit_s=BACK_LIMIT_S, what=f"heartbeat of {host.name}")


def test_the_controller_is_killed_while_it_works(lab: Laboratory):
    names = [f"busy{number}" for number in range(3)]
    for name in names:
        lab.records("guest", "create", "--name", name, "--flavor", "tiny", "--network", "lab-net")
    restarts = int(lab.management.unit(CONTROLLER, "NRestarts")["NRestarts"])
    with measured("controller killed (SIGKILL) with three creates under way until all three run"):
        lab.management.signal(signal.SIGKILL, CONTROLLER)
        wait_until(lambda: is_back(lab.management, CONTROLLER, restarts), limit_s=BACK_LIMIT_S, what="controller again")
        wait_until(
            lambda: (
                [guest["status"]["state"] for guest in lab.records("guest", "list") if "status" in guest]
                == ["running"] * 3
            ),
            limit_s=120,
            what="three running guests",
        )


@pytest.mark.parametrize("unit", [*UNITS, CONTROLLER])
def test_the_watchdog_ends_a_hang(lab: Laboratory, unit: str):
    host = lab.management if unit == CONTROLLER else lab.host("h3")
    folder = f"/run/systemd/system/{unit}.service.d"
    host.run("sh", "-ec", f'mkdir -p {folder}; printf "[Service]\\nWatchdogSec={WATCHDOG_S}\\n" >{folder}/short.conf')
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", unit, limit_s=60)
    try:
        restarts = int(host.unit(unit, "NRestarts")["NRestarts"])
        host.signal(signal.SIGSTOP, unit)
        with measured(f"{unit} stands still, WatchdogSec={WATCHDOG_S}, until it is ready again"):
            wait_until(lambda: is_back(host, unit, restarts), limit_s=BACK_LIMIT_S, what=f"{unit} after its hang")
        said = host.journal(f"--unit={unit}", "--since=-2min")
        assert any("Watchdog timeout" in str(entry["MESSAGE"]) for entry in said)
    finally:
        host.run("rm", "-r", folder)
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", unit, limit_s=60)


def test_the_journal_is_searched_by_fields(lab: Laboratory):
    guest = lab.create_guest("told")
    host = lab.host_of(guest)
    ready = host.journal("--unit=lochness-heartbeat", "EVENT=daemon.ready")
    assert ready
    assert {entry["SYSLOG_IDENTIFIER"] for entry in ready} == {"lochness-heartbeat"}
    wait_until(
        lambda: host.journal("--unit=lochness-agent", f"GUEST_ID={guest['id']}"),
        limit_s=20,
        what="word of the agent about the guest",
    )
    assert lab.management.journal("--unit=lochness-controller", "EVENT=daemon.ready")


def test_a_wrong_configuration_ends_with_78_and_is_not_restarted(lab: Laboratory):
    host = lab.host("h3")
    path = host.files / "etc/lochness/node.toml"
    right = path.read_text()
    path.write_text(right + "\n[heartbeat]\nttl = 30\n")
    try:
        host.run("systemctl", "restart", "lochness-heartbeat", is_checked=False, limit_s=60)
        seen = host.unit("lochness-heartbeat", "ExecMainStatus", "ActiveState", "NRestarts")
        assert (seen["ExecMainStatus"], seen["ActiveState"], seen["NRestarts"]) == ("78", "failed", "0")
        (*_, last) = host.journal("--unit=lochness-heartbeat", "_COMM=lochness-node")
        assert "ttl" in str(last["MESSAGE"])
    finally:
        path.write_text(right)
        host.run("systemctl", "restart", "lochness-heartbeat", limit_s=60)
