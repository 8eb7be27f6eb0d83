"""How do statuses stay true and guests stay up: read, observe, decide, perform each?

Invariants:
1. A status is written under compares on the binding and on the guest's record: the status of a deleted guest never
   comes back, and a guest that was bound elsewhere is not spoken for.
2. No status changes while libvirt does not answer: missing is not deleted.
3. One guest's failure does not keep another from being looked after; a store that does not answer ends the pass, as it
   would end every action after it.
4. A pass starts and stops guests for at most `STARTS_LIMIT_S`, then the next pass goes on.
5. A pass that libvirt's events woke looks at the domains they name; every other one, and at the latest the second of
   the cadence after it, looks at all.
6. A start that is refused because this host holds no lease puts off all others as well, so that their order stays.

What makes it look: libvirt's events, the watch on this hypervisor's bindings, and the clock. The wishes
(guests/ID/power) are not watched: that is a watch on guests/, and each of 1,000 hosts would hear of every change in the
cluster. Who changes a wish calls the agent, whose deed is an event; a wish that nobody acts upon is found by the next
full pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from lochness import events, keys
from lochness.clock import Clock, SystemClock
from lochness.errors import (
    AmbiguousWriteError,
    ConflictError,
    DeadlineError,
    DriverError,
    LochnessError,
    UnavailableError,
)
from lochness.log import get_logger
from lochness.metrics import Figure
from lochness.store.protocol import KeyExists, KeyUnchanged, Put, Store
from lochness_node.binding_watch import BindingWatch
from lochness_node.daemon import PassReport, Waker
from lochness_node.driver.protocol import Domain, DomainState, Driver
from lochness_node.driver.seen_domains import SeenDomains
from lochness_node.fencing import LEASE_MISSING
from lochness_node.guestwatch.decide import (
    Action,
    ReportFinding,
    ReportGivenUp,
    StartGuest,
    StopGuest,
    WriteStatus,
    decide,
)
from lochness_node.guestwatch.desired import Desired, read_desired
from lochness_node.guestwatch.findings import Finding, FindingKind, after_refused_stop, after_stop
from lochness_node.guestwatch.memory import (
    Drift,
    Memory,
    Observed,
    after_refusal,
    after_start,
    next_look_s,
    remember,
)
from lochness_node.guestwatch.policy import Policy
from lochness_node.guestwatch.start import Busy, Failed, NotNeeded, Refused, Started, start_missed
from lochness_node.guestwatch.stop import stop_stray
from lochness_node.pass_loop import FRESH_SHARE
from lochness_node.settings import GuestwatchSettings, reloaded

STARTS_LIMIT_S: Final = 15.0
#: How soon to ask a libvirt again that did not answer.
_LIBVIRT_LOOK_S: Final = 2.0
_SOON_S: Final = 0.1

_FINDING_EVENTS: Final[Mapping[FindingKind, str]] = {
    FindingKind.UNBOUND: events.GUESTWATCH_UNBOUND_DOMAIN_FOUND,
    FindingKind.UNWANTED: events.GUESTWATCH_UNWANTED_GUEST_FOUND,
    FindingKind.ORPHAN: events.GUESTWATCH_ORPHAN_BINDING_FOUND,
    FindingKind.VANISHED: events.GUESTWATCH_GUEST_VANISHED,
    FindingKind.NAME_TAKEN: events.GUESTWATCH_NAME_TAKEN,
}


class Guestwatch:
    """The daemon, see `lochness_node.pass_loop.Daemon`. `reread` answers the settings as they are now (SIGHUP)."""

    name = "guestwatch"

    def __init__(
        self,
        settings: GuestwatchSettings,
        store: Store,
        driver: Driver,
        *,
        reread: Callable[[], GuestwatchSettings] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._driver = driver
        self._reread = reread or (lambda: settings)
        self._clock = clock or SystemClock()
        self._log = get_logger(self.name)
        self.waker = Waker()
        self._memory = Memory()
        self._problems: Mapping[str, str] = {}
        self._has_observed = False
        self._is_blind = False
        self._has_no_lease = False  # a start of this pass was refused for it
        self._seen = SeenDomains(driver, self._clock, self.waker.wake)
        self._watch = BindingWatch(store, settings.id, self.waker, self._log)

    @property
    def interval_s(self) -> float:
        return self._settings.interval_s

    @property
    def retry_max_s(self) -> float:
        return self.interval_s

    def run_pass(self) -> PassReport:
        self._watch.ensure_started()
        desired = read_desired(self._store, self._settings.id)
        self._report_problems(desired.problems)
        domains = self._domains()
        if domains is None:
            return PassReport("libvirt does not answer; statuses stay as they are", look_again_s=_LIBVIRT_LOOK_S)
        ours: dict[str, Domain] = {domain.ownership.guest_id: domain for domain in domains if domain.ownership}
        foreign = {
            id: domain
            for domain in domains
            if domain.ownership is None
            for id in (domain.uuid, domain.name)
            if id in desired.guests
        }
        now_s = self._clock.monotonic_s()
        observed = Observed(ours, now_s, self._clock.now().isoformat(timespec="seconds"), foreign)
        policy = _policy(self._settings)
        self._memory = remember(desired, observed, self._memory, policy)
        actions = decide(desired, observed, self._memory, policy)
        is_complete = self._perform_all(actions, policy)
        self._log.debug(events.GUESTWATCH_PASS_FINISHED, guests=len(desired.guests), actions=len(actions))
        states = _states(desired, observed)
        return PassReport(_status(states), self._look_again_s(is_complete, policy), _figures(states))

    def reload(self) -> None:
        self._settings = reloaded(self._settings, self._reread(), self._log)

    def stop(self) -> None:
        self._watch.stop()
        self._store.close()
        self._driver.close()

    def _domains(self) -> tuple[Domain, ...] | None:
        """None when libvirt does not answer any more, which is said once. Raises its errors until it did once."""
        try:
            is_named = self._seen.has_news
            domains = self._seen.recent(FRESH_SHARE * self.interval_s) if is_named else self._seen.all()
        except (UnavailableError, DeadlineError, DriverError) as error:
            if not self._has_observed:
                raise
            if not self._is_blind:
                self._is_blind = True
                self._log.warning(events.GUESTWATCH_LIBVIRT_LOST, error=str(error))
            return None
        self._has_observed = True
        if self._is_blind:
            self._is_blind = False
            self._log.info(events.GUESTWATCH_LIBVIRT_RECOVERED)
        return domains

    def _perform_all(self, actions: tuple[Action, ...], policy: Policy) -> bool:
        """Answers whether everything was performed; what was not is decided again by the next pass."""
        is_complete = True
        self._has_no_lease = False
        starts_end_s = self._clock.monotonic_s() + STARTS_LIMIT_S
        for action in actions:
            if isinstance(action, StartGuest | StopGuest) and self._clock.monotonic_s() > starts_end_s:
                is_complete = False
                continue
            try:
                self._perform(action, policy)
            except (UnavailableError, AmbiguousWriteError):
                raise
            except ConflictError:
                is_complete = False  # it changed under our hands: nothing was written
            except LochnessError as error:
                self._failed(action, str(error))
            except Exception as error:  # the boundary of one guest: the others are looked after all the same
                self._log.error(events.GUESTWATCH_ACTION_FAILED, action=repr(action), exc_info=error)
        return is_complete

    def _perform(self, action: Action, policy: Policy) -> None:
        match action:
            case WriteStatus(guest_id, status):
                binding = keys.hypervisor_guest(self._settings.id, guest_id)
                self._store.commit(
                    [KeyUnchanged(binding, status.binding_revision), KeyExists(keys.guest(guest_id))],
                    [Put(keys.guest_status(guest_id), status.to_json())],
                )
                self._log.info(
                    events.GUESTWATCH_STATUS_WRITTEN, guest=guest_id, state=status.state, reason=status.reason
                )
            case StartGuest(guest_id, drift):
                self._keep(guest_id, self._start(guest_id, drift, policy))
            case ReportGivenUp(guest_id, starts, text):
                self._log.error(events.GUESTWATCH_GIVEN_UP, guest=guest_id, starts=starts, why=text)
                self._keep(guest_id, replace(self._memory.drifts[guest_id], is_reported=True))
            case ReportFinding(guest_id, kind, state):
                self._log.warning(_FINDING_EVENTS[kind], guest=guest_id, state=state.value if state else "")
                self._keep_finding(kind, guest_id, replace(self._memory.findings[kind, guest_id], is_reported=True))
            case StopGuest(guest_id, kind, how):
                self._keep_finding(kind, guest_id, self._stop(guest_id, kind, how, policy))

    def _keep(self, guest_id: str, drift: Drift) -> None:
        self._memory = replace(self._memory, drifts={**self._memory.drifts, guest_id: drift})

    def _keep_finding(self, kind: FindingKind, guest_id: str, finding: Finding) -> None:
        self._memory = replace(self._memory, findings={**self._memory.findings, (kind, guest_id): finding})

    def _start(self, guest_id: str, drift: Drift, policy: Policy) -> Drift:
        now_s = self._clock.monotonic_s()
        if self._has_no_lease:
            return after_refusal(drift, now_s, policy, refusal=drift.refusal or LEASE_MISSING)
        lock_dir = Path(self._settings.lock_dir)
        outcome = start_missed(self._store, self._driver, lock_dir, self._settings.id, guest_id, drift.what)
        now_s = self._clock.monotonic_s()
        which = {"guest": guest_id, "action": drift.what, "starts": drift.starts + 1, "starts_max": policy.starts_max}
        match outcome:
            case Started(binding_revision):
                self._log.info(events.GUESTWATCH_ACTION_DONE, binding_revision=binding_revision, **which)
                return after_start(drift, now_s, policy)
            case Failed(text):
                self._log.warning(events.GUESTWATCH_ACTION_FAILED, error=text, **which)
                return after_start(drift, now_s, policy, failure=text)
            case Refused(reason, text):
                self._has_no_lease = reason == LEASE_MISSING
                if reason != drift.refusal:
                    self._log.warning(events.GUESTWATCH_ACTION_REFUSED, reason=reason, error=text, **which)
                return after_refusal(drift, now_s, policy, refusal=reason)
            case Busy():
                return after_refusal(drift, now_s, policy)
            case NotNeeded():
                return drift

    def _stop(self, guest_id: str, kind: FindingKind, how: Literal["shutdown", "destroy"], policy: Policy) -> Finding:
        finding = self._memory.findings[kind, guest_id]
        lock_dir = Path(self._settings.lock_dir)
        outcome = stop_stray(self._store, self._driver, lock_dir, self._settings.id, guest_id, kind, how)
        now_s = self._clock.monotonic_s()
        which = {"guest": guest_id, "action": how, "finding": kind.value}
        match outcome:
            case Started(binding_revision):
                self._log.warning(events.GUESTWATCH_STRAY_STOPPED, binding_revision=binding_revision, **which)
                return after_stop(finding, now_s, policy)
            case Failed(text):
                self._log.warning(events.GUESTWATCH_ACTION_FAILED, error=text, **which)
                return after_stop(finding, now_s, policy)
            case Refused(reason, text):
                if reason != finding.refusal:
                    self._log.warning(events.GUESTWATCH_ACTION_REFUSED, reason=reason, error=text, **which)
                return after_refused_stop(finding, now_s, policy, refusal=reason)
            case Busy() | NotNeeded():
                return after_refused_stop(finding, now_s, policy)

    def _failed(self, action: Action, error: str) -> None:
        self._log.warning(
            events.GUESTWATCH_ACTION_FAILED, guest=action.guest_id, action=type(action).__name__, error=error
        )

    def _look_again_s(self, is_complete: bool, policy: Policy) -> float | None:
        if not is_complete:
            return _SOON_S
        at_s = next_look_s(self._memory, self._clock.monotonic_s(), policy)
        return None if at_s is None else max(_SOON_S, at_s - self._clock.monotonic_s())

    def _report_problems(self, problems: Mapping[str, str]) -> None:
        for guest_id, text in problems.items():
            if self._problems.get(guest_id) != text:
                self._log.error(events.GUESTWATCH_RECORD_UNREADABLE, guest=guest_id, error=text)
        self._problems = problems


def _states(desired: Desired, observed: Observed) -> Counter[str]:
    return Counter(observed.domains[id].state.value if id in observed.domains else "missing" for id in desired.guests)


def _status(states: Counter[str]) -> str:
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{states.total()} guests" + (f": {counted}" if counted else "")


def _figures(states: Counter[str]) -> tuple[Figure, ...]:
    about = "Guests bound here by what libvirt says of them."
    return tuple(
        Figure("guestwatch_guests", about, states[state], labels=(("state", state),))
        for state in (*(known.value for known in DomainState), "missing")
    )


def _policy(settings: GuestwatchSettings) -> Policy:
    return Policy(
        start_missed=settings.start_missed,
        restart=settings.restart,
        resume_paused=settings.resume_paused,
        confirm_s=settings.confirm_s,
        backoff_s=settings.backoff_s,
        backoff_max_s=settings.backoff_max_s,
        starts_max=settings.starts_max,
        stable_s=settings.stable_s,
        starts_at_once=settings.starts_at_once,
        start_pause_s=settings.start_pause_s,
        unbound=settings.unbound,
        unwanted=settings.unwanted,
        unwanted_after_s=settings.unwanted_after_s,
        stop_grace_s=settings.stop_grace_s,
    )
