"""What guestwatch does about its guests: scenarios in virtual time, one observation after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from lochness.identity import GuestID, new_id
from lochness.model.guest import GuestStatus
from lochness_node.driver.protocol import Domain, DomainState, Ownership
from lochness_node.guestwatch.decide import (
    NOT_CREATED,
    VANISHED,
    ReportGivenUp,
    ReportUnbound,
    StartGuest,
    WriteStatus,
    decide,
)
from lochness_node.guestwatch.desired import Desired, Wanted
from lochness_node.guestwatch.memory import (
    Memory,
    Observed,
    Policy,
    after_refusal,
    after_start,
    next_look_s,
    remember,
)

HV = new_id()
GUEST = new_id()
POLICY = Policy(confirm_s=2, backoff_s=5, backoff_max_s=15, starts_max=3, stable_s=60)
REVISION = 7


def domain(state: DomainState, *, guest: str = GUEST, reason: str = "booted", revision: int = REVISION) -> Domain:
    return Domain(guest, guest, "", state, reason, 64, 1, Ownership(GuestID(guest), revision))


def wanted(power="running", **changes) -> Wanted:
    return Wanted(**{"binding_revision": REVISION, "power": power, "power_revision": 3, **changes})


class Watch:
    """Guestwatch without its shell: performs what is decided on what is known, keeps no clock."""

    def __init__(self, policy: Policy = POLICY, guests: Mapping[str, Wanted] | None = None) -> None:
        self.policy = policy
        self.guests = {GUEST: wanted()} if guests is None else dict(guests)
        self.memory = Memory()
        self.start_outcome = "started"

    def look(self, now_s: float, *domains: Domain):
        """One pass; statuses are written and starts tried as `start_outcome` says. Answers the actions."""
        desired = Desired(HV, self.guests)
        observed = Observed({each.uuid: each for each in domains}, now_s, f"T{now_s:g}")
        self.memory = remember(desired, observed, self.memory, self.policy)
        actions = decide(desired, observed, self.memory, self.policy)
        for action in actions:
            self._perform(action, now_s)
        desired = Desired(HV, self.guests)
        again = remember(desired, observed, self.memory, self.policy)
        assert again == self.memory, "looking twice is remembered twice"
        assert decide(desired, observed, again, self.policy) == (), "decided again, something is left to do"
        return actions

    def _perform(self, action, now_s: float) -> None:
        id = action.guest_id
        match action:
            case WriteStatus(status=status):
                self.guests[id] = replace(self.guests[id], status=status)
            case StartGuest(drift=drift):
                match self.start_outcome:
                    case "started":
                        drift = after_start(drift, now_s, self.policy)
                    case "failed":
                        drift = after_start(drift, now_s, self.policy, failure="no such bridge")
                    case _:
                        drift = after_refusal(drift, now_s, self.policy, refusal="lease_missing")
                self.memory = replace(self.memory, drifts={**self.memory.drifts, id: drift})
            case ReportGivenUp():
                drift = replace(self.memory.drifts[id], is_reported=True)
                self.memory = replace(self.memory, drifts={**self.memory.drifts, id: drift})
            case ReportUnbound():
                seen = replace(self.memory.unbound[id], is_reported=True)
                self.memory = replace(self.memory, unbound={**self.memory.unbound, id: seen})

    def kinds(self, now_s: float, *domains: Domain) -> list[type]:
        return [type(action) for action in self.look(now_s, *domains)]

    def starts(self, now_s: float, *domains: Domain) -> bool:
        return StartGuest in self.kinds(now_s, *domains)

    @property
    def status(self) -> GuestStatus:
        status = self.guests[GUEST].status
        assert status is not None
        return status


RUNNING, STOPPED = domain(DomainState.RUNNING), domain(DomainState.STOPPED, reason="crashed")


# -- statuses


@pytest.mark.parametrize(
    ("state", "shown", "reason"),
    [
        (DomainState.RUNNING, "running", "booted"),
        (DomainState.PAUSED, "paused", "booted"),
        (DomainState.STOPPING, "shutting_down", "booted"),
        (DomainState.STOPPED, "stopped", "booted"),
        (DomainState.CRASHED, "crashed", "booted"),
        (DomainState.SLEEPING, "paused", "asleep"),
        (DomainState.UNKNOWN, "unknown", "booted"),
    ],
)
def test_a_status_says_state_reason_place_and_token(state, shown, reason):
    watch = Watch()
    watch.look(0, domain(state))
    assert watch.status == GuestStatus(state=shown, reason=reason, since="T0", hypervisor=HV, binding_revision=REVISION)


def test_off_after_a_crash_is_crashed():
    watch = Watch()
    watch.look(0, STOPPED)
    assert (watch.status.state, watch.status.reason) == ("crashed", "crashed")


def test_every_state_of_the_driver_has_a_status():
    for state in DomainState:
        watch = Watch()
        assert WriteStatus in watch.kinds(0, domain(state))


def test_a_status_is_written_once():
    watch = Watch()
    assert watch.kinds(0, RUNNING) == [WriteStatus]
    assert watch.kinds(30, RUNNING) == []


def test_since_stays_while_only_the_reason_changes():
    watch = Watch()
    watch.look(0, RUNNING)
    watch.look(5, domain(DomainState.RUNNING, reason="unpaused"))
    assert (watch.status.reason, watch.status.since) == ("unpaused", "T0")
    watch.look(9, domain(DomainState.PAUSED, reason="user"))
    assert watch.status.since == "T9"


def test_a_new_binding_begins_a_new_status():
    watch = Watch()
    watch.look(0, RUNNING)
    watch.guests[GUEST] = replace(watch.guests[GUEST], binding_revision=20)
    watch.look(5, domain(DomainState.RUNNING, revision=20))
    assert (watch.status.binding_revision, watch.status.since) == (20, "T5")


def test_a_guest_without_a_domain_is_missing_not_created_and_not_started():
    watch = Watch()
    assert watch.kinds(0) == [WriteStatus]
    assert (watch.status.state, watch.status.reason) == ("missing", NOT_CREATED)
    assert watch.kinds(60) == []


def test_a_domain_that_vanished_is_missing_for_that_reason():
    watch = Watch()
    watch.look(0, RUNNING)
    watch.look(1)
    assert (watch.status.state, watch.status.reason) == ("missing", VANISHED)
    assert watch.kinds(60) == []


def test_a_binding_without_a_guest_gets_no_status_and_no_start():
    watch = Watch(guests={GUEST: wanted(has_record=False)})
    for now_s in (0, 3, 60):
        assert watch.look(now_s, STOPPED) == ()
    assert next_look_s(watch.memory, POLICY) is None


# -- drift


def test_a_guest_that_should_run_is_started_after_the_second_observation():
    watch = Watch()
    assert not watch.starts(0, STOPPED)
    assert next_look_s(watch.memory, POLICY) == 2
    assert not watch.starts(1.9, STOPPED)
    assert watch.starts(2, STOPPED)


def test_a_reboot_is_not_a_drift():
    watch = Watch()
    watch.look(0, RUNNING)
    assert not watch.starts(1, STOPPED)
    assert not watch.starts(1.2, RUNNING)
    assert not watch.starts(3.1, STOPPED)
    assert watch.memory.drifts[GUEST].down_since_s == 3.1


@pytest.mark.parametrize("power", ["stopped", "paused", None])
def test_a_guest_that_should_not_run_is_left_alone(power):
    watch = Watch(guests={GUEST: wanted(power)})
    for now_s in (0, 3, 60):
        assert not watch.starts(now_s, STOPPED)


def test_a_shutdown_is_not_fought():
    watch = Watch()
    watch.look(0, RUNNING)
    watch.look(1, STOPPED)
    watch.guests[GUEST] = replace(watch.guests[GUEST], power="stopped", power_revision=9)
    assert not watch.starts(60, STOPPED)
    assert watch.memory.drifts == {}


@pytest.mark.parametrize("state", [state for state in DomainState if state is not DomainState.STOPPED])
def test_only_what_is_off_is_started(state):
    watch = Watch()
    for now_s in (0, 3, 60):
        assert not watch.starts(now_s, domain(state))


def test_starting_can_be_switched_off():
    watch = Watch(replace(POLICY, start_missed=False))
    for now_s in (0, 3, 60):
        assert not watch.starts(now_s, STOPPED)


def attempts(watch: Watch, until_s: int) -> list[int]:
    """The seconds at which a start was tried while the guest stayed down, looked at every second."""
    return [now_s for now_s in range(until_s) if watch.starts(now_s, STOPPED)]


def test_failed_starts_back_off_and_are_given_up_loudly():
    watch = Watch()
    watch.start_outcome = "failed"
    assert attempts(watch, 100) == [2, 7, 17]
    assert watch.memory.drifts[GUEST].given_up == "3 starts failed, the last: no such bridge"
    assert watch.status.reason == "start given up: 3 starts failed, the last: no such bridge"
    assert watch.status.state == "crashed"
    assert next_look_s(watch.memory, POLICY) is None


def test_the_wait_between_starts_has_a_limit():
    watch = Watch(replace(POLICY, starts_max=6))
    watch.start_outcome = "failed"
    assert attempts(watch, 200) == [2, 7, 17, 32, 47, 62]


def test_giving_up_is_said_once():
    watch = Watch()
    watch.start_outcome = "failed"
    said = [now_s for now_s in range(100) if ReportGivenUp in watch.kinds(now_s, STOPPED)]
    assert len(said) == 1


def test_a_guest_that_falls_again_and_again_is_given_up_too():
    watch = Watch()
    starts, is_up = 0, False
    for now_s in range(200):
        is_up = watch.starts(now_s, RUNNING if is_up else STOPPED) or (is_up and now_s % 5 != 0)
        starts += watch.memory.drifts[GUEST].starts > starts if GUEST in watch.memory.drifts else 0
    assert starts == 3
    assert "it did not stay up" in watch.memory.drifts[GUEST].given_up


def test_a_guest_that_stayed_up_has_a_clean_slate():
    watch = Watch()
    watch.look(0, STOPPED)
    assert watch.starts(2, STOPPED)
    watch.look(3, RUNNING)
    assert next_look_s(watch.memory, POLICY) == 63
    watch.look(62.9, RUNNING)
    assert watch.memory.drifts[GUEST].starts == 1
    watch.look(63, RUNNING)
    assert watch.memory.drifts == {}


@pytest.mark.parametrize("change", ["wish", "binding", "domain"])
def test_what_the_operator_does_about_it_is_a_clean_slate(change):
    watch = Watch()
    watch.start_outcome = "failed"
    attempts(watch, 100)
    again = STOPPED
    match change:
        case "wish":
            watch.guests[GUEST] = replace(watch.guests[GUEST], power_revision=50)
        case "binding":
            watch.guests[GUEST] = replace(watch.guests[GUEST], binding_revision=50)
            again = domain(DomainState.STOPPED, revision=50)
        case "domain":
            watch.guests[GUEST] = replace(watch.guests[GUEST], binding_revision=8)
            again = domain(DomainState.STOPPED, revision=8)
    watch.look(200, again)
    assert watch.starts(202, again)


def test_refusals_do_not_count_and_are_asked_again_without_end():
    watch = Watch()
    watch.start_outcome = "refused"
    assert attempts(watch, 30) == [2, 7, 12, 17, 22, 27]
    watch.start_outcome = "started"
    assert watch.starts(40, STOPPED)


def test_a_domain_of_an_earlier_binding_is_never_started():
    watch = Watch()
    old = domain(DomainState.STOPPED, revision=4)
    kinds = [kind for now_s in range(30) for kind in watch.kinds(now_s, old)]
    assert StartGuest not in kinds
    assert kinds.count(ReportGivenUp) == 1
    assert "binding revision 4" in watch.status.reason


def test_one_guest_does_not_hold_up_another():
    other = new_id()
    watch = Watch(guests={GUEST: wanted(), other: wanted()})
    watch.start_outcome = "failed"
    attempts(watch, 100)
    watch.look(100, STOPPED, domain(DomainState.STOPPED, guest=other))
    actions = watch.look(102, STOPPED, domain(DomainState.STOPPED, guest=other))
    assert [action.guest_id for action in actions if isinstance(action, StartGuest)] == [other]


# -- domains without a binding


def test_a_domain_of_ours_without_a_binding_is_reported_once_and_left_alone():
    stray = domain(DomainState.RUNNING, guest=new_id())
    watch = Watch()
    watch.look(0, RUNNING, stray)
    assert next_look_s(watch.memory, POLICY) == 2
    actions = watch.look(2, RUNNING, stray)
    assert actions == (ReportUnbound(stray.uuid, DomainState.RUNNING),)
    assert watch.look(30, RUNNING, stray) == ()
    watch.look(31, RUNNING)
    assert watch.memory.unbound == {}


def test_a_domain_younger_than_the_reading_is_not_reported():
    watch = Watch()
    new = domain(DomainState.RUNNING, guest=new_id())
    watch.look(0, RUNNING, new)
    watch.guests = {**watch.guests, new.uuid: wanted()}
    assert ReportUnbound not in watch.kinds(5, RUNNING, new)
