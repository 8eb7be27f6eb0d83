"""What else can be wrong between this host and the store, and how long has it been so?

    unbound        a domain of ours that no guest is bound here for (or whose guest is gone)
    unwanted       a guest that should be off or paused, and runs
    orphan         a binding whose guest's record is gone
    vanished       a guest that was here and should run, and has no domain any more
    name_taken     a domain that is not ours has a bound guest's UUID or name

1. A finding counts only when it was seen for a while: it may be younger than our reading, and what should be off has
   time to obey. Then it is said once.
2. Only the first two can be acted upon, and only if the configuration says "stop": first by the power button, then,
   each `stop_grace_s` and at most `starts_max` times, by pulling the plug. Nothing is ever undefined, no file removed.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from lochness_node.driver.protocol import Domain, DomainState
from lochness_node.guestwatch.desired import Desired, Wanted
from lochness_node.guestwatch.policy import Policy

NOT_CREATED: Final = "not created yet"
VANISHED: Final = "the domain is gone"


class FindingKind(StrEnum):
    UNBOUND = "unbound"
    UNWANTED = "unwanted"
    ORPHAN = "orphan"
    VANISHED = "vanished"
    NAME_TAKEN = "name_taken"


@dataclass(frozen=True, slots=True)
class Finding:
    """First seen at `since_s`. `stops` were tried, none before `not_before_s`. `can_stop`: there is a process to stop.

    `refusal` is why the last stop was not even tried ("": it was).
    """

    since_s: float
    is_reported: bool = False
    can_stop: bool = False
    stops: int = 0
    not_before_s: float = 0.0
    refusal: str = ""

    def confirmed_s(self, kind: FindingKind, policy: Policy) -> float:
        """From when on it counts."""
        return self.since_s + (policy.unwanted_after_s if kind is FindingKind.UNWANTED else policy.confirm_s)

    def is_to_stop(self, kind: FindingKind, policy: Policy) -> bool:
        """Whether the domain should be made to stop, now or later."""
        stray = {FindingKind.UNBOUND: policy.unbound, FindingKind.UNWANTED: policy.unwanted}
        return stray.get(kind) == "stop" and self.stops < policy.starts_max

    def due_s(self, kind: FindingKind, policy: Policy) -> float | None:
        """When something is to be done or said about it; None: never again."""
        if not self.is_reported:
            return self.confirmed_s(kind, policy)
        if self.can_stop and self.is_to_stop(kind, policy):
            return max(self.confirmed_s(kind, policy), self.not_before_s)
        return None


def after_stop(finding: Finding, now_s: float, policy: Policy) -> Finding:
    """After the button was pressed or the plug was pulled."""
    return replace(finding, stops=finding.stops + 1, refusal="", not_before_s=now_s + policy.stop_grace_s)


def after_refused_stop(finding: Finding, now_s: float, policy: Policy, *, refusal: str = "") -> Finding:
    """After a stop was not possible to try: asked again without end."""
    return replace(finding, refusal=refusal, not_before_s=now_s + policy.backoff_s)


def stoppable(kind: FindingKind, wanted: Wanted | None, domain: Domain | None) -> bool:
    """Whether the finding is about a process that should not be there."""
    if domain is None or not domain.state.is_active:
        return False
    return kind is FindingKind.UNBOUND or (wanted is not None and wanted.power == "stopped")


def found(
    desired: Desired, domains: Mapping[str, Domain], foreign: Mapping[str, Domain]
) -> Iterator[tuple[FindingKind, str]]:
    """What is wrong now, by kind and guest."""
    for id in domains:
        if id not in desired.guests or not desired.guests[id].has_record:
            yield FindingKind.UNBOUND, id
    for id, wanted in desired.guests.items():
        if not wanted.has_record:
            yield FindingKind.ORPHAN, id
        elif id in foreign:
            yield FindingKind.NAME_TAKEN, id
        elif id not in domains:
            if has_vanished(wanted):
                yield FindingKind.VANISHED, id
        elif is_unwanted(wanted, domains[id]):
            yield FindingKind.UNWANTED, id


def has_vanished(wanted: Wanted) -> bool:
    """Whether a bound guest without a domain had one under this binding, and should run."""
    before = wanted.status
    had_one = (
        before is not None
        and before.binding_revision == wanted.binding_revision
        and (before.state, before.reason) != ("missing", NOT_CREATED)
    )
    return had_one and wanted.power == "running"


def is_unwanted(wanted: Wanted, domain: Domain) -> bool:
    """Whether it runs and should not."""
    match wanted.power:
        case "stopped":
            return domain.state.is_active
        case "paused":
            return domain.state is DomainState.RUNNING
        case _:
            return False
