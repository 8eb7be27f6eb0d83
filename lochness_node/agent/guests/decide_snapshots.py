"""Which snapshots has a guest, and may one more be taken? Pure.

1. A snapshot of the whole guest is one that each of its disks has under the same name.
2. A name is taken on no disk that has it already: qcow2 would keep both and confuse them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lochness.errors import ConflictError, ValidationError
from lochness.model.job import rfc3339
from lochness.model.record import decode_object

#: Begins the name of our snapshots in a qcow2 file. qemu-img takes a name of digits for a number; ours never are.
PREFIX: Final = "lochness-"
SNAPSHOT_EXISTS: Final = "snapshot_exists"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class DiskSnapshot:
    """One snapshot of one disk: its name without PREFIX, and when it was taken, in seconds since 1970."""

    name: str
    created_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the disks named."""

    name: str
    disks: tuple[str, ...]
    created_s: float

    def fields(self) -> dict[str, object]:
        """As the agent answers it."""
        created = datetime.fromtimestamp(self.created_s, UTC)
        return {"name": self.name, "disks": list(self.disks), "created_at": rfc3339(created)}


def snapshot_name(text: str) -> str:
    """`text` when it can name a snapshot. Raises ValidationError."""
    if _NAME.fullmatch(text) is None:
        raise ValidationError(
            "a snapshot's name has 1 to 64 of the characters A-Z a-z 0-9 _ . - and begins with a letter or a digit, "
            f"got {text[:80]!r}",
            field="name",
        )
    return text


def requested_name(body: bytes, now: datetime) -> str:
    """The name in a request `{"name": ...}`; without one, the time. Raises ValidationError."""
    name = decode_object(body).get("name", "") if body.strip() else ""
    if not isinstance(name, str):
        raise ValidationError("name must be a string", field="name")
    return snapshot_name(name or now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ"))


def joined(found: Mapping[str, Sequence[DiskSnapshot]]) -> list[Snapshot]:
    """Those that every disk has, oldest first."""
    times: dict[str, dict[str, float]] = {}
    for disk, snapshots in found.items():
        for snapshot in snapshots:
            times.setdefault(snapshot.name, {})[disk] = snapshot.created_s
    whole = [
        Snapshot(name, tuple(found), max(by_disk.values()))
        for name, by_disk in times.items()
        if len(by_disk) == len(found)
    ]
    return sorted(whole, key=lambda snapshot: (snapshot.created_s, snapshot.name))


def require_free(names: Mapping[str, Set[str]], name: str) -> None:
    """Raise ConflictError (snapshot_exists) when one of the disks has a snapshot of that name."""
    having = [disk for disk, taken in names.items() if name in taken]
    if having:
        raise ConflictError(f"snapshot {name} is on {', '.join(having)} already", reason=SNAPSHOT_EXISTS)
