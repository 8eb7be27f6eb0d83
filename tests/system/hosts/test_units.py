"""The units on a real systemd: restarts, crashes and hangs are mended, guests feel none of it, the journal tells it."""

from __future__ import annotations

import signal
from functools import partial

import pytest

from lochness_lab.hosts.laboratory import CONTROLLER, UNITS, Laboratory
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import BACK_LIMIT_S, alive, answers, is_back, measured, qemu_pids, watchdog_ends_a_hang

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]


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
    watchdog_ends_a_hang(host, unit)


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
