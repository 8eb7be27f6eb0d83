"""What must guestwatch remember from one pass to the next, to be patient with a guest and not with all?

1. A guest that should run and does not, or stands still, is a drift. It counts only when it was seen so for
   `confirm_s`: a reboot is a stop and a start, and the wish to shut down may follow its effect.
2. Each start makes the next wait longer. A guest that stays up for `stable_s` has a clean slate; one that used up
   `starts_max` starts without that is given up.
3. A new wish (guests/ID/power written again), a new definition of the domain or a new binding is a clean slate too:
   whatever the operator does about a guest that was given up, it is tried again.
4. At most `starts_at_once` guests are started within `start_pause_s`: after a host's boot they come up one after the
   other, not all at once. What was refused does not count.

Pure: time is passed in, memory goes in and comes out. It is not stored: a restarted guestwatch begins with patience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lochness_node.driver.protocol import Domain
from lochness_node.guestwatch.desired import Desired, Wanted
from lochness_node.guestwatch.findings import Finding, FindingKind, found, stoppable
from lochness_node.guestwatch.policy import Policy, needed


@dataclass(frozen=True, slots=True)
class Observed:
    """Our domains of this host by guest id; `now_s` is monotonic, `now` the time of day in RFC 3339.

    `foreign` are the domains that are not ours but have the UUID or the name of a guest, by that guest's id.
    """

    domains: Mapping[str, Domain]
    now_s: float
    now: str
    foreign: Mapping[str, Domain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slate:
    """What a drift belongs to; any other value is a clean slate."""

    binding_revision: int
    power_revision: int
    domain_revision: int


@dataclass(frozen=True, slots=True)
class Drift:
    """A guest that should run: seen down since `down_since_s`, or up again since `up_since_s` (the other is None).

    `what` would mend it. `starts` (or resumes) were made, the last at `started_s`; it ended with `failure` ("": it was
    started, and fell again); none before `not_before_s`. `refusal` is why the last was not even tried ("": it was).
    `given_up` and why; `is_reported` when that was said.
    """

    slate: Slate
    down_since_s: float | None
    up_since_s: float | None = None
    what: Literal["start", "resume"] = "start"
    starts: int = 0
    started_s: float | None = None
    failure: str = ""
    refusal: str = ""
    not_before_s: float = 0.0
    given_up: str = ""
    is_reported: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """`findings` are what else is wrong, by kind and guest; see `findings`."""

    drifts: Mapping[str, Drift] = field(default_factory=dict)
    findings: Mapping[tuple[FindingKind, str], Finding] = field(default_factory=dict)


def remember(desired: Desired, observed: Observed, memory: Memory, policy: Policy) -> Memory:
    """The memory after this observation."""
    drifts: dict[str, Drift] = {}
    for id, wanted in desired.guests.items():
        domain = observed.domains.get(id)
        if domain is None or not wanted.has_record or wanted.power != "running" or not policy.start_missed:
            continue
        need = needed(domain, wanted, policy)
        if need == "leave":
            continue
        drift = _seen(need, _slate(wanted, domain), memory.drifts.get(id), observed.now_s, policy)
        if drift is not None:
            drifts[id] = drift
    findings: dict[tuple[FindingKind, str], Finding] = {}
    for kind, id in found(desired, observed.domains, observed.foreign):
        before = memory.findings.get((kind, id), Finding(since_s=observed.now_s))
        can_stop = stoppable(kind, desired.guests.get(id), observed.domains.get(id))
        findings[kind, id] = replace(before, can_stop=can_stop)
    return Memory(drifts, findings)


def _slate(wanted: Wanted, domain: Domain) -> Slate:
    domain_revision = domain.ownership.binding_revision if domain.ownership else 0
    return Slate(wanted.binding_revision, wanted.power_revision, domain_revision)


def _seen(
    need: Literal["start", "resume", "nothing"],
    slate: Slate,
    drift: Drift | None,
    now_s: float,
    policy: Policy,
) -> Drift | None:
    if drift is not None and drift.slate != slate:
        drift = None
    if need == "nothing":
        if drift is None or drift.starts == 0:
            return None
        if drift.up_since_s is None:
            return replace(drift, down_since_s=None, up_since_s=now_s, failure="", given_up="", is_reported=False)
        return None if now_s - drift.up_since_s >= policy.stable_s else drift
    if drift is None:
        drift = Drift(slate, down_since_s=now_s, what=need)
    elif drift.down_since_s is None:
        drift = replace(drift, down_since_s=now_s, up_since_s=None)
    drift = replace(drift, what=need)
    if not drift.given_up and is_confirmed(drift, now_s, policy):
        return replace(drift, given_up=_why_give_up(drift, policy))
    return drift


def _why_give_up(drift: Drift, policy: Policy) -> str:
    """ "" while there is hope."""
    slate = drift.slate
    if slate.domain_revision != slate.binding_revision:
        return (
            f"its domain was defined under binding revision {slate.domain_revision}, "
            f"it is bound under {slate.binding_revision}"
        )
    if drift.starts >= policy.starts_max:
        return f"{drift.starts} starts failed, the last: {drift.failure or 'it did not stay up'}"
    return ""


def is_confirmed(drift: Drift, now_s: float, policy: Policy) -> bool:
    """Whether it is time to do something about the drift."""
    return drift.down_since_s is not None and now_s >= due_s(drift, policy)


def due_s(drift: Drift, policy: Policy) -> float:
    """When it is time to do something about a guest that is down."""
    return max((drift.down_since_s or 0.0) + policy.confirm_s, drift.not_before_s)


def after_start(drift: Drift, now_s: float, policy: Policy, *, failure: str = "") -> Drift:
    """After a start was tried: it counts, whether it worked (`failure` "") or not."""
    starts = drift.starts + 1
    pause_s = min(policy.backoff_s * 2.0 ** min(starts - 1, 32), policy.backoff_max_s)
    return replace(
        drift,
        starts=starts,
        started_s=now_s,
        failure=failure,
        refusal="",
        not_before_s=now_s + pause_s,
        down_since_s=now_s,
    )


def after_refusal(drift: Drift, now_s: float, policy: Policy, *, refusal: str = "") -> Drift:
    """After a start was not allowed, or not possible to try: that does not count, it is asked again without end."""
    return replace(drift, refusal=refusal, not_before_s=now_s + policy.backoff_s)


def starts_allowed(memory: Memory, now_s: float, policy: Policy) -> int:
    """How many guests may be started now without coming up too many at once."""
    return max(0, policy.starts_at_once - len(_recent_starts(memory, now_s, policy)))


def _recent_starts(memory: Memory, now_s: float, policy: Policy) -> list[float]:
    started_s = [drift.started_s for drift in memory.drifts.values() if drift.started_s is not None]
    return sorted(each for each in started_s if now_s < each + policy.start_pause_s)


def next_look_s(memory: Memory, now_s: float, policy: Policy) -> float | None:
    """When something remembered will be due (monotonic), None when nothing is pending."""
    times = [
        due_s(drift, policy)
        for drift in memory.drifts.values()
        if drift.down_since_s is not None and not drift.given_up
    ]
    if times and not starts_allowed(memory, now_s, policy):
        oldest_s = _recent_starts(memory, now_s, policy)[0]
        times = [max(min(times), oldest_s + policy.start_pause_s)]
    times += [drift.up_since_s + policy.stable_s for drift in memory.drifts.values() if drift.up_since_s is not None]
    times += [at_s for (kind, _), each in memory.findings.items() if (at_s := each.due_s(kind, policy)) is not None]
    return min(times, default=None)
