"""What guestwatch does about its guests: scenarios in virtual time, one observation after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lochness.identity import GuestID, new_id
from lochness.model.guest import GuestStatus
from lochness_node.driver.protocol import Domain, DomainState, Ownership
from lochness_node.guestwatch.decide import (
    ReportFinding,
    ReportGivenUp,
    StartGuest,
    StopGuest,
    WriteStatus,
    decide,
)
from lochness_node.guestwatch.desired import Desired, Wanted
from lochness_node.guestwatch.findings import (
    NOT_CREATED,
    VANISHED,
    FindingKind,
    after_refused_stop,
    after_stop,
)
from lochness_node.guestwatch.memory import (
    Memory,
    Observed,
    after_refusal,
    after_start,
    next_look_s,
    remember,
)
from lochness_node.guestwatch.policy import Policy

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
        self.stop_outcome = "stopped"

    def look(self, now_s: float, *domains: Domain, foreign: Mapping[str, Domain] | None = None):
        """One pass; statuses are written and starts tried as `start_outcome` says. Answers the actions."""
        self.now_s = now_s
        desired = Desired(HV, self.guests)
        observed = Observed({each.uuid: each for each in domains}, now_s, f"T{now_s:g}", foreign or {})
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
            case ReportFinding(kind=kind):
                self._keep(kind, id, replace(self.memory.findings[kind, id], is_reported=True))
            case StopGuest(kind=kind):
                finding = self.memory.findings[kind, id]
                change = after_stop if self.stop_outcome == "stopped" else after_refused_stop
                self._keep(kind, id, change(finding, now_s, self.policy))

    def _keep(self, kind, id, finding) -> None:
        self.memory = replace(self.memory, findings={**self.memory.findings, (kind, id): finding})

    def next_look_s(self) -> float | None:
        return next_look_s(self.memory, self.now_s, self.policy)

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
    assert watch.look(60) == (ReportFinding(GUEST, FindingKind.VANISHED, None),)
    assert watch.kinds(90) == []


def test_a_binding_without_a_guest_gets_no_status_and_no_start():
    watch = Watch(guests={GUEST: wanted(has_record=False)})
    said = [type(action) for now_s in (0, 3, 60) for action in watch.look(now_s, STOPPED)]
    assert said == [ReportFinding, ReportFinding]
    assert {kind for kind, _ in watch.memory.findings} == {FindingKind.ORPHAN, FindingKind.UNBOUND}
    assert watch.next_look_s() is None


# -- drift


def test_a_guest_that_should_run_is_started_after_the_second_observation():
    watch = Watch()
    assert not watch.starts(0, STOPPED)
    assert watch.next_look_s() == 2
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
    assert watch.next_look_s() is None


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
    assert watch.next_look_s() == 63
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
    assert watch.next_look_s() == 2
    actions = watch.look(2, RUNNING, stray)
    assert actions == (ReportFinding(stray.uuid, FindingKind.UNBOUND, DomainState.RUNNING),)
    assert watch.look(30, RUNNING, stray) == ()
    watch.look(31, RUNNING)
    assert watch.memory.findings == {}


def test_a_domain_younger_than_the_reading_is_not_reported():
    watch = Watch()
    new = domain(DomainState.RUNNING, guest=new_id())
    watch.look(0, RUNNING, new)
    watch.guests = {**watch.guests, new.uuid: wanted()}
    assert ReportFinding not in watch.kinds(5, RUNNING, new)


# -- restart policies, order and pace

OFF_BY_ITSELF = domain(DomainState.STOPPED, reason="shutdown")
AFTER_BOOT = domain(DomainState.STOPPED, reason="unknown")


@pytest.mark.parametrize(
    ("restart", "seen", "starts"),
    [
        ("always", STOPPED, True),
        ("always", OFF_BY_ITSELF, True),
        ("always", AFTER_BOOT, True),
        ("on-failure", STOPPED, True),
        ("on-failure", OFF_BY_ITSELF, False),
        ("on-failure", domain(DomainState.STOPPED, reason="destroyed"), False),
        ("on-failure", AFTER_BOOT, True),
        ("never", STOPPED, False),
        ("never", OFF_BY_ITSELF, False),
        ("never", AFTER_BOOT, False),
    ],
)
@pytest.mark.parametrize("is_own", [True, False])
def test_the_restart_policy_decides_and_the_guests_own_wins(restart, seen, starts, is_own):
    other = "never" if restart == "always" else "always"
    configured: Any = other if is_own else restart
    policy = replace(POLICY, restart=configured)
    watch = Watch(policy, {GUEST: wanted(restart=restart if is_own else None)})
    watch.look(0, seen)
    assert watch.starts(2, seen) is starts
    assert ("restart policy" in watch.status.reason) is not starts


def resumed(watch: Watch, now_s: float, *domains: Domain) -> list[str]:
    return [each.drift.what for each in watch.look(now_s, *domains) if isinstance(each, StartGuest)]


@pytest.mark.parametrize("reason", ["user", "ioerror", "unknown"])
def test_a_guest_that_should_run_and_is_paused_is_resumed(reason):
    watch = Watch()
    paused = domain(DomainState.PAUSED, reason=reason)
    assert resumed(watch, 0, paused) == []
    assert resumed(watch, 2, paused) == ["resume"]
    watch.look(3, RUNNING)
    watch.look(63, RUNNING)
    assert watch.memory.drifts == {}


@pytest.mark.parametrize("reason", ["migration", "save", "dump", "snapshot", "starting_up", "watchdog", "crashed"])
def test_a_pause_that_is_libvirts_own_or_tells_of_a_broken_guest_is_left(reason):
    watch = Watch()
    for now_s in (0, 3, 60):
        assert resumed(watch, now_s, domain(DomainState.PAUSED, reason=reason)) == []


@pytest.mark.parametrize("policy", [replace(POLICY, resume_paused=False), replace(POLICY, restart="never")])
def test_resuming_can_be_switched_off(policy):
    watch = Watch(policy)
    for now_s in (0, 3, 60):
        assert resumed(watch, now_s, domain(DomainState.PAUSED, reason="user")) == []
    assert "left so by" in watch.status.reason


def test_a_resume_that_does_not_last_is_given_up_like_a_start():
    watch = Watch()
    full_disk = domain(DomainState.PAUSED, reason="ioerror")
    tried = [now_s for now_s in range(100) if resumed(watch, now_s, full_disk)]
    assert tried == [2, 7, 17]
    assert watch.memory.drifts[GUEST].given_up
    assert watch.status.state == "paused"


def test_after_a_boot_guests_start_in_their_order_and_at_their_pace():
    ids = sorted(new_id() for _ in range(5))
    orders = dict(zip(ids, (100, 20, 100, 10, 20), strict=True))
    watch = Watch(
        replace(POLICY, starts_at_once=2, start_pause_s=10),
        {id: wanted(boot_order=order) for id, order in orders.items()},
    )
    expected = sorted(ids, key=lambda id: (orders[id], id))
    state = {id: domain(DomainState.STOPPED, guest=id, reason="unknown") for id in ids}
    started: dict[str, float] = {}
    now_s = 0.0
    while len(started) < len(ids):
        for action in watch.look(now_s, *state.values()):
            if isinstance(action, StartGuest):
                started[action.guest_id] = now_s
                state[action.guest_id] = domain(DomainState.RUNNING, guest=action.guest_id)
        next_s = watch.next_look_s()
        assert next_s is not None
        assert next_s > now_s
        now_s = next_s
    assert list(started) == expected
    assert list(started.values()) == [2, 2, 12, 12, 22]


def test_a_guest_in_its_back_off_does_not_hold_up_those_after_it():
    first, second = sorted([new_id(), new_id()])
    watch = Watch(
        replace(POLICY, starts_at_once=1, start_pause_s=1), {first: wanted(boot_order=1), second: wanted(boot_order=2)}
    )
    watch.start_outcome = "failed"
    down = [domain(DomainState.STOPPED, guest=id) for id in (first, second)]
    watch.look(0, *down)
    assert [each.guest_id for each in watch.look(2, *down) if isinstance(each, StartGuest)] == [first]
    assert [each.guest_id for each in watch.look(3, *down) if isinstance(each, StartGuest)] == [second]


# -- what else can be wrong


def findings(watch: Watch, until_s: int, *domains: Domain, foreign=None) -> list[tuple[int, FindingKind]]:
    """When which finding was said, looked at every second."""
    return [
        (now_s, action.kind)
        for now_s in range(until_s)
        for action in watch.look(now_s, *domains, foreign=foreign)
        if isinstance(action, ReportFinding)
    ]


def stops(watch: Watch, until_s: int, *domains: Domain) -> list[tuple[int, str]]:
    return [
        (now_s, action.how)
        for now_s in range(until_s)
        for action in watch.look(now_s, *domains)
        if isinstance(action, StopGuest)
    ]


STRICT = replace(POLICY, unbound="stop", unwanted="stop", unwanted_after_s=30, stop_grace_s=10)


@pytest.mark.parametrize("power", ["stopped", "paused"])
def test_a_guest_that_runs_and_should_not_is_said_after_its_time_to_obey(power):
    watch = Watch(replace(POLICY, unwanted_after_s=30), {GUEST: wanted(power)})
    assert findings(watch, 100, RUNNING) == [(30, FindingKind.UNWANTED)]
    assert stops(watch, 100, RUNNING) == []


def test_a_guest_that_runs_and_should_not_is_stopped_when_the_configuration_says_so():
    watch = Watch(STRICT, {GUEST: wanted("stopped")})
    assert stops(watch, 100, RUNNING) == [(30, "shutdown"), (40, "destroy"), (50, "destroy")], "starts_max is 3"


def test_a_guest_that_should_be_paused_is_never_stopped():
    assert stops(Watch(STRICT, {GUEST: wanted("paused")}), 100, RUNNING) == []


def test_a_guest_that_should_run_or_of_which_nobody_said_is_never_stopped():
    for power in ("running", None):
        assert stops(Watch(STRICT, {GUEST: wanted(power)}), 100, RUNNING) == []


def test_a_domain_without_a_binding_is_stopped_when_the_configuration_says_so():
    watch = Watch(STRICT, {})
    assert stops(watch, 20, RUNNING) == [(2, "shutdown"), (12, "destroy")]
    assert stops(Watch(STRICT, {}), 20, STOPPED) == []


def test_a_refused_stop_does_not_count():
    watch = Watch(STRICT, {})
    watch.stop_outcome = "refused"
    assert stops(watch, 15, RUNNING) == [(2, "shutdown"), (7, "shutdown"), (12, "shutdown")]


def test_a_guest_whose_name_another_domain_has_is_missing_for_that_reason():
    other = replace(RUNNING, uuid=new_id(), ownership=None)
    watch = Watch()
    assert findings(watch, 10, foreign={GUEST: other}) == [(2, FindingKind.NAME_TAKEN)]
    assert watch.status.state == "missing"
    assert other.uuid in watch.status.reason
