"""Which hypervisors are to be marked as lost, and which are back? Pure.

hypervisors/ID/lost says since when the heartbeat is missing: the heartbeat goes with its lease and leaves no word.

Invariants:
1. Deciding again about what was decided and written changes nothing.
2. A hypervisor that has never reported anything and has no guest is new, not lost.
3. A mark is set only while the hypervisor is registered and its heartbeat missing, and removed only as it was seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from lochness import keys
from lochness.guest_state import LostRecord
from lochness.store.protocol import Delete, KeyExists, KeyUnchanged, Put
from lochness.transactions import Transaction

#: Three compares each at most, and 128 in a transaction.
MARKS_PER_TRANSACTION: Final = 40


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """What is seen of one. `missing_since` (RFC 3339) is when its heartbeat was first seen to be missing."""

    id: str
    is_registered: bool = False
    is_beating: bool = False
    is_known: bool = False
    """It has reported its resources once, or has guests."""
    missing_since: str = ""
    mark_revision: int = 0
    """Of hypervisors/ID/lost; 0: there is none."""
    mark_since: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """It is lost since then."""

    hypervisor: str
    since: str


@dataclass(frozen=True, slots=True)
class Unmark:
    """It beats again, or is not registered any more."""

    hypervisor: str
    mark_revision: int
    since: str


Action: TypeAlias = Mark | Unmark


def decide(seen: Iterable[Hypervisor]) -> tuple[Action, ...]:
    """What is to be written."""
    actions: list[Action] = []
    for each in seen:
        is_lost = each.is_registered and each.is_known and not each.is_beating
        if is_lost and not each.mark_revision:
            actions.append(Mark(each.id, each.missing_since))
        elif each.mark_revision and (each.is_beating or not each.is_registered):
            actions.append(Unmark(each.id, each.mark_revision, each.mark_since))
    return tuple(actions)


def transaction(action: Action) -> Transaction:
    """The writes of one action and what they rest on."""
    id = action.hypervisor
    lost = keys.hypervisor_lost(id)
    match action:
        case Mark(since=since):
            rests_on = (
                KeyExists(keys.hypervisor(id)),
                KeyUnchanged(keys.hypervisor_heartbeat(id), 0),
                KeyUnchanged(lost, 0),
            )
            return Transaction(rests_on, (Put(lost, LostRecord(since=since).to_json()),))
        case Unmark(mark_revision=revision):
            return Transaction((KeyUnchanged(lost, revision),), (Delete(lost),))
