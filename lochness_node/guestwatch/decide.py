"""What is to be done about the guests of this hypervisor, given what should be, what is, and what is remembered?

1. Nothing here ever removes a domain. One is stopped only when it should not run and the configuration says so.
2. A status is written only when it says something new, and only for a guest that exists and is bound here.
3. A guest is started or resumed only when it should run, is defined here under its present binding, was seen so long
   enough, and its restart policy says so. One that should be stopped or paused is never started, a missing one never
   recreated.
4. Guests that are due together start in the order of their boot order, then of their ids, as many as the pace allows.
5. Decided again on the outcome, there is nothing left to do (tests/unit/node asserts it).

Not decided here: whether a start or stop is allowed at that moment. `start` and `stop` ask, under the guest's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from lochness.model.guest import GuestState, GuestStatus
from lochness_node.driver.protocol import Domain, DomainState
from lochness_node.guestwatch.desired import Desired, Wanted
from lochness_node.guestwatch.findings import NOT_CREATED, VANISHED, Finding, FindingKind
from lochness_node.guestwatch.memory import Drift, Memory, Observed, is_confirmed, starts_allowed
from lochness_node.guestwatch.policy import Policy, needed, restart_policy

_STATES: Final[dict[DomainState, GuestState]] = {
    DomainState.RUNNING: "running",
    DomainState.PAUSED: "paused",
    DomainState.SLEEPING: "paused",
    DomainState.STOPPING: "shutting_down",
    DomainState.STOPPED: "stopped",
    DomainState.CRASHED: "crashed",
    DomainState.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Write guests/ID/status, provided that the binding and the guest's record are still there."""

    guest_id: str
    status: GuestStatus


@dataclass(frozen=True, slots=True)
class StartGuest:
    """Do `drift.what`, if under its lock that is still needed and wanted and `decide_start` allows it."""

    guest_id: str
    drift: Drift


@dataclass(frozen=True, slots=True)
class StopGuest:
    """Stop what should not run, if under its lock that is still so."""

    guest_id: str
    kind: FindingKind
    how: Literal["shutdown", "destroy"]


@dataclass(frozen=True, slots=True)
class ReportGivenUp:
    """Say that the guest will not be started any more, and why."""

    guest_id: str
    starts: int
    text: str


@dataclass(frozen=True, slots=True)
class ReportFinding:
    """Say what is wrong; `state` of its domain, None when there is none."""

    guest_id: str
    kind: FindingKind
    state: DomainState | None


Action = WriteStatus | StartGuest | StopGuest | ReportGivenUp | ReportFinding


def decide(desired: Desired, observed: Observed, memory: Memory, policy: Policy) -> tuple[Action, ...]:
    """The actions; `memory` is what `remember` made of this observation."""
    actions: list[Action] = []
    due: list[tuple[int, str]] = []
    for id, wanted in desired.guests.items():
        if not wanted.has_record:
            continue
        drift = memory.drifts.get(id)
        status = _status(desired.hypervisor_id, id, wanted, observed, drift, policy)
        if status is not None:
            actions.append(WriteStatus(id, status))
        if drift is None:
            continue
        if drift.given_up:
            if not drift.is_reported:
                actions.append(ReportGivenUp(id, drift.starts, drift.given_up))
        elif is_confirmed(drift, observed.now_s, policy):
            due.append((wanted.boot_order, id))
    for _, id in sorted(due)[: starts_allowed(memory, observed.now_s, policy)]:
        actions.append(StartGuest(id, memory.drifts[id]))
    for (kind, id), finding in memory.findings.items():
        actions.extend(_about(kind, id, finding, observed, policy))
    return tuple(actions)


def _about(kind: FindingKind, id: str, finding: Finding, observed: Observed, policy: Policy) -> list[Action]:
    due_s = finding.due_s(kind, policy)
    if due_s is None or observed.now_s < due_s:
        return []
    domain = observed.domains.get(id) or observed.foreign.get(id)
    actions: list[Action] = []
    if not finding.is_reported:
        actions.append(ReportFinding(id, kind, domain.state if domain else None))
    if finding.can_stop and finding.is_to_stop(kind, policy) and observed.now_s >= finding.not_before_s:
        actions.append(StopGuest(id, kind, "destroy" if finding.stops else "shutdown"))
    return actions


def _status(
    hypervisor_id: str, id: str, wanted: Wanted, observed: Observed, drift: Drift | None, policy: Policy
) -> GuestStatus | None:
    """The status to write, None when what is written already says it."""
    before, domain, now = wanted.status, observed.domains.get(id), observed.now
    is_same_binding = before is not None and before.binding_revision == wanted.binding_revision
    state: GuestState
    if domain is not None:
        state, reason = _STATES[domain.state], domain.reason
        if domain.state is DomainState.SLEEPING:
            reason = "asleep"
        elif domain.state is DomainState.STOPPED and domain.reason == "crashed":
            state = "crashed"
        if drift is not None and drift.given_up:
            reason = f"start given up: {drift.given_up}"
        elif wanted.power == "running" and needed(domain, wanted, policy) == "leave":
            reason = f"{reason}, {_why_left(domain, wanted, policy)}"
    elif id in observed.foreign:
        taken = observed.foreign[id]
        state, reason = "missing", f"a domain that is not ours has its UUID or name ({taken.uuid}, {taken.name})"
    else:
        never_seen = before is None or not is_same_binding or (before.state, before.reason) == ("missing", NOT_CREATED)
        state, reason = "missing", NOT_CREATED if never_seen else VANISHED
    if before is None or not is_same_binding or before.hypervisor != hypervisor_id:
        since = now
    elif (before.state, before.reason, before.details) == (state, reason, {}):
        return None
    else:
        since = before.since if before.state == state else now
    return GuestStatus(
        state=state,
        reason=reason,
        since=since,
        hypervisor=hypervisor_id,
        binding_revision=wanted.binding_revision,
    )


def _why_left(domain: Domain, wanted: Wanted, policy: Policy) -> str:
    restart = restart_policy(wanted, policy)
    if domain.state is DomainState.PAUSED and restart != "never":
        return "left so by resume_paused = false"
    return f"left so by its restart policy {restart}"
