"""How does a repair that fsck proposes get from a report, over a person's eyes, into the store?

A plan is a JSON file: what is broken, what is to be done about it, and the revision of every key it rests on.

Invariants:
1. What a plan holds is done only while every key it names is as it was when the plan was made.
2. A plan can put and delete single keys below the root of Loch Ness, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from lochness import keys
from lochness.errors import ValidationError
from lochness.invariants import Violation
from lochness.store.protocol import Delete, KeyUnchanged, Put
from lochness.transactions import Transaction

FORMAT: Final = "lochness-repair-plan"
VERSION: Final = 1


class SeenKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key and the revision of its last change; 0: it did not exist."""

    key: str
    mod_revision: int


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Put `value` (base64 in the file) to `key`; None deletes it."""

    key: str
    value: bytes | None = None


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One repair. `kind` and `text` say what is broken, `repair` what mends it, both for people."""

    kind: str
    text: str
    repair: str
    seen: tuple[SeenKey, ...]
    changes: tuple[Change, ...]

    def transaction(self) -> Transaction:
        """What is committed for it."""
        return Transaction(
            tuple(KeyUnchanged(each.key, each.mod_revision) for each in self.seen),
            tuple(Delete(each.key) if each.value is None else Put(each.key, each.value) for each in self.changes),
        )


class RepairPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All repairs that were proposed at `revision` of the store."""

    format: str = FORMAT
    version: int = VERSION
    revision: int
    repairs: tuple[Repair, ...]

    def to_json(self) -> bytes:
        """As a file: one indented object, a newline at its end."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> RepairPlan:
        """Raises ValidationError for what no fsck has written."""
        try:
            plan = msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValidationError(f"not a repair plan: {error}", field="plan") from error
        if (plan.format, plan.version) != (FORMAT, VERSION):
            text = f"not a repair plan of version {VERSION}: format {plan.format!r}, version {plan.version}"
            raise ValidationError(text, field="plan")
        for repair in plan.repairs:
            seen = {each.key for each in repair.seen}
            for change in repair.changes:
                if not change.key.startswith(keys.ROOT) or change.key not in seen:
                    text = f"the plan would change {change.key!r}, which it has not looked at or is not ours"
                    raise ValidationError(text, field="plan")
        return plan


def repair_plan(revision: int, violations: Iterable[Violation]) -> RepairPlan:
    """The plan of all that can be repaired; what a person must decide is not in it."""
    return RepairPlan(revision=revision, repairs=tuple(_repair(each) for each in violations if each.repair is not None))


def _repair(violation: Violation) -> Repair:
    transaction = violation.repair
    assert transaction is not None
    seen = [SeenKey(each.key, each.mod_revision) for each in transaction.compares if isinstance(each, KeyUnchanged)]
    changes: list[Change] = []
    for operation in transaction.operations:
        match operation:
            case Put(key, value):
                changes.append(Change(key, value))
            case Delete(key):
                changes.append(Change(key))
            case _:  # a repair never deletes a range: it could take what nobody has looked at
                raise AssertionError(operation)
    return Repair(violation.kind, violation.text, violation.repair_text, tuple(seen), tuple(changes))
