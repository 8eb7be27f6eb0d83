"""What must guestwatch remember from one pass to the next, to be patient with a guest and not with all?

1. A guest that should run and does not is a drift. It counts only when it was seen down for `confirm_s`: a reboot is a
   stop and a start, and the wish to shut down may follow its effect.
2. Each start makes the next wait longer. A guest that stays up for `stable_s` has a clean slate; one that used up
   `starts_max` starts without that is given up.
3. A new wish (guests/ID/power written again), a new definition of the domain or a new binding is a clean slate too:
   whatever the operator does about a guest that was given up, it is tried again.
4. A domain of ours without a binding counts only when it was seen so for `confirm_s`: it may be younger than our
   reading.

Pure: time is passed in, memory goes in and comes out. It is not stored: a restarted guestwatch begins with patience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lochness_node.driver.protocol import Domain, DomainState
from lochness_node.guestwatch.desired import Desired, Wanted


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient to be, see `GuestwatchSettings`."""

    start_missed: bool = True
    confirm_s: float = 2.0
    backoff_s: float = 5.0
    backoff_max_s: float = 300.0
    starts_max: int = 5
    stable_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Observed:
    """Our domains of this host by guest id; `now_s` is monotonic, `now` the time of day in RFC 3339."""

    domains: Mapping[str, Domain]
    now_s: float
    now: str


@dataclass(frozen=True, slots=True)
class Slate:
    """What a drift belongs to; any other value is a clean slate."""

    binding_revision: int
    power_revision: int
    domain_revision: int


@dataclass(frozen=True, slots=True)
class Drift:
    """A guest that should run: seen down since `down_since_s`, or up again since `up_since_s` (the other is None).

    `starts` were made, the last ended with `failure` ("": it was started, and fell again); none before `not_before_s`.
    `refusal` is why the last was not even tried ("": it was). `given_up` and why; `is_reported` when that was said.
    """

    slate: Slate
    down_since_s: float | None
    up_since_s: float | None = None
    starts: int = 0
    failure: str = ""
    refusal: str = ""
    not_before_s: float = 0.0
    given_up: str = ""
    is_reported: bool = False


@dataclass(frozen=True, slots=True)
class Unbound:
    """A domain of ours without a binding here, first seen so at `since_s`."""

    since_s: float
    is_reported: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    drifts: Mapping[str, Drift] = field(default_factory=dict)
    unbound: Mapping[str, Unbound] = field(default_factory=dict)


def is_down(domain: Domain) -> bool:
    """Off, so that a start would do something. A crashed domain that was kept for inspection is not."""
    return domain.state is DomainState.STOPPED


def remember(desired: Desired, observed: Observed, memory: Memory, policy: Policy) -> Memory:
    """The memory after this observation."""
    drifts: dict[str, Drift] = {}
    for id, wanted in desired.guests.items():
        domain = observed.domains.get(id)
        if domain is None or not wanted.has_record or wanted.power != "running" or not policy.start_missed:
            continue
        drift = _seen(domain, _slate(wanted, domain), memory.drifts.get(id), observed.now_s, policy)
        if drift is not None:
            drifts[id] = drift
    unbound = {
        id: memory.unbound.get(id, Unbound(since_s=observed.now_s))
        for id in observed.domains
        if id not in desired.guests
    }
    return Memory(drifts, unbound)


def _slate(wanted: Wanted, domain: Domain) -> Slate:
    domain_revision = domain.ownership.binding_revision if domain.ownership else 0
    return Slate(wanted.binding_revision, wanted.power_revision, domain_revision)


def _seen(domain: Domain, slate: Slate, drift: Drift | None, now_s: float, policy: Policy) -> Drift | None:
    if drift is not None and drift.slate != slate:
        drift = None
    if not is_down(domain):
        if drift is None or drift.starts == 0:
            return None
        if drift.up_since_s is None:
            return replace(drift, down_since_s=None, up_since_s=now_s, failure="", given_up="", is_reported=False)
        return None if now_s - drift.up_since_s >= policy.stable_s else drift
    if drift is None:
        drift = Drift(slate, down_since_s=now_s)
    elif drift.down_since_s is None:
        drift = replace(drift, down_since_s=now_s, up_since_s=None)
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
    return replace(drift, starts=starts, failure=failure, refusal="", not_before_s=now_s + pause_s, down_since_s=now_s)


def after_refusal(drift: Drift, now_s: float, policy: Policy, *, refusal: str = "") -> Drift:
    """After a start was not allowed, or not possible to try: that does not count, it is asked again without end."""
    return replace(drift, refusal=refusal, not_before_s=now_s + policy.backoff_s)


def next_look_s(memory: Memory, policy: Policy) -> float | None:
    """When something remembered will be due (monotonic), None when nothing is pending."""
    times = [
        due_s(drift, policy)
        for drift in memory.drifts.values()
        if drift.down_since_s is not None and not drift.given_up
    ]
    times += [drift.up_since_s + policy.stable_s for drift in memory.drifts.values() if drift.up_since_s is not None]
    times += [unbound.since_s + policy.confirm_s for unbound in memory.unbound.values() if not unbound.is_reported]
    return min(times, default=None)
