"""What is to be done about the guests of this hypervisor, given what should be, what is, and what is remembered?

1. Nothing here ever stops, changes or removes a domain.
2. A status is written only when it says something new, and only for a guest that exists and is bound here.
3. A guest is started only when it should run, is defined here under its present binding, and was seen down long enough.
   A guest that should be stopped or paused is never started, a missing one never recreated.
4. Decided again on the outcome, there is nothing left to do (tests/unit/node asserts it).

Not decided here: whether a start is allowed at that moment. `verify_start` says, under the guest's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lochness.model.guest import GuestState, GuestStatus
from lochness_node.driver.protocol import Domain, DomainState
from lochness_node.guestwatch.desired import Desired, Wanted
from lochness_node.guestwatch.memory import Drift, Memory, Observed, Policy, is_confirmed

NOT_CREATED: Final = "not created yet"
VANISHED: Final = "the domain is gone"

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
    """Start it, if under its lock it is still down, still wanted and `verify_start` allows it."""

    guest_id: str
    drift: Drift


@dataclass(frozen=True, slots=True)
class ReportGivenUp:
    """Say that the guest will not be started any more, and why."""

    guest_id: str
    starts: int
    text: str


@dataclass(frozen=True, slots=True)
class ReportUnbound:
    """Say that a domain of ours is here without a binding."""

    guest_id: str
    state: DomainState


Action = WriteStatus | StartGuest | ReportGivenUp | ReportUnbound


def decide(desired: Desired, observed: Observed, memory: Memory, policy: Policy) -> tuple[Action, ...]:
    """The actions; `memory` is what `remember` made of this observation."""
    actions: list[Action] = []
    for id, wanted in desired.guests.items():
        if not wanted.has_record:
            continue
        drift = memory.drifts.get(id)
        status = _status(desired.hypervisor_id, wanted, observed.domains.get(id), drift, observed.now)
        if status is not None:
            actions.append(WriteStatus(id, status))
        if drift is None:
            continue
        if drift.given_up:
            if not drift.is_reported:
                actions.append(ReportGivenUp(id, drift.starts, drift.given_up))
        elif is_confirmed(drift, observed.now_s, policy):
            actions.append(StartGuest(id, drift))
    for id, unbound in memory.unbound.items():
        if not unbound.is_reported and observed.now_s >= unbound.since_s + policy.confirm_s:
            actions.append(ReportUnbound(id, observed.domains[id].state))
    return tuple(actions)


def _status(
    hypervisor_id: str, wanted: Wanted, domain: Domain | None, drift: Drift | None, now: str
) -> GuestStatus | None:
    """The status to write, None when what is written already says it."""
    before = wanted.status
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
