"""What is shown of guests on hypervisors that are alive, dead and gone (lochness.guest_state)."""

from __future__ import annotations

from lochness.guest_state import ALIVE, HypervisorSeen, shown_status
from lochness.model.guest import GuestStatus

HOST = "11111111-1111-4111-8111-111111111111"
RUNNING = GuestStatus(state="running", reason="booted", since="2026-01-01T00:00:00Z", hypervisor=HOST)
DEAD = HypervisorSeen(is_alive=False, lost_since="2026-01-02T00:00:00Z")


def test_on_a_living_hypervisor_the_stored_status_is_shown_as_it_is():
    assert shown_status(RUNNING, HOST, ALIVE) is RUNNING


def test_on_a_dead_hypervisor_a_guest_is_unknown_since_its_heartbeat_is_missing():
    shown = shown_status(RUNNING, HOST, DEAD)
    assert (shown.state, shown.reason, shown.since) == ("unknown", "hypervisor_lost", "2026-01-02T00:00:00Z")
    assert shown.details == {"last_state": "running", "last_seen_since": "2026-01-01T00:00:00Z"}
    assert RUNNING.state == "running"


def test_on_a_hypervisor_that_is_not_registered_any_more_a_guest_is_unknown():
    shown = shown_status(RUNNING, HOST, HypervisorSeen(is_registered=False, is_alive=False))
    assert (shown.state, shown.reason) == ("unknown", "hypervisor_not_registered")


def test_a_guest_that_is_nowhere_is_not_touched():
    blank = GuestStatus()
    assert shown_status(blank, "", DEAD) is blank
