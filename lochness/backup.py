"""What is a backup of the key space, and what would restoring one change? Pure, but for the text of the file.

A backup is a text file of JSON lines: a header, one line per key, and a last line with the count and the SHA-256 of
all lines before it. It is one revision of the store. Keys under a lease (heartbeats, running controllers) are left out:
they say who is alive now.

Invariants:
1. A backup that was cut off, changed or is not one is refused before anything of it is used.
2. Restoring is decided from the backup and one reading of the store, and guarded by every key that it changes.
3. Work that was under way is not taken up again: unfinished jobs are not restored. An old order to delete must not
   delete what was made since.

Not guaranteed: that the world is as the backup says. Guests made since then run on, unknown; guests deleted since then
are said to exist. `lochness fsck` and the guestwatch of each hypervisor tell of both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.job import JobRecord
from lochness.store.protocol import MAX_TRANSACTION_OPS, Delete, KeyUnchanged, KeyValue, Operation, Put, Reading
from lochness.transactions import Transaction

FORMAT: Final = "lochness-backup"
VERSION: Final = 1


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `created_at` is RFC 3339, `revision` the store's."""

    format: str = FORMAT
    version: int = VERSION
    created_at: str
    revision: int


class Entry(msgspec.Struct, frozen=True):
    """One key with its value, base64 in the file."""

    key: str
    value: bytes


class Trailer(msgspec.Struct, frozen=True):
    """The last line: how many keys, and the SHA-256 of every line before this one, newlines included."""

    keys: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that is whole."""

    header: Header
    entries: Mapping[str, bytes]

    def items(self) -> list[KeyValue]:
        """Its keys as a store would show them, for `lochness.invariants.check`."""
        revision = self.header.revision
        return [KeyValue(key, value, revision, revision) for key, value in self.entries.items()]


def backup_lines(reading: Reading, created_at: str) -> Iterator[bytes]:
    """The lines of the backup of `reading` (of Prefix(keys.ROOT)), each with its newline."""
    digest = hashlib.sha256()
    header = Header(created_at=created_at, revision=reading.revision)
    kept = [Entry(item.key, item.value) for item in reading.ranges[0] if not item.lease_id]
    for part in (header, *kept):
        line = msgspec.json.encode(part) + b"\n"
        digest.update(line)
        yield line
    yield msgspec.json.encode(Trailer(len(kept), digest.hexdigest())) + b"\n"


def read_backup(content: bytes) -> Backup:
    """The backup in a file's content. Raises ValidationError that says what is wrong with it."""
    lines = content.splitlines(keepends=True)
    if not lines:
        raise ValidationError("the backup is empty", field="backup")
    try:
        header = msgspec.json.decode(lines[0], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValidationError(f"not a backup of Loch Ness: its first line: {error}", field="backup") from error
    if (header.format, header.version) != (FORMAT, VERSION):
        text = f"not a backup of version {VERSION}: format {header.format!r}, version {header.version}"
        raise ValidationError(text, field="backup")
    try:
        trailer = msgspec.json.decode(lines[-1], type=Trailer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValidationError(f"the backup is cut off after line {len(lines)}: no last line", field="backup") from error
    body = lines[:-1]
    if trailer.keys != len(body) - 1:
        text = f"the backup is damaged: its last line counts {trailer.keys} keys, there are {len(body) - 1}"
        raise ValidationError(text, field="backup")
    if hashlib.sha256(b"".join(body)).hexdigest() != trailer.sha256:
        raise ValidationError("the backup is damaged: its SHA-256 is not that of its last line", field="backup")
    entries: dict[str, bytes] = {}
    for number, line in enumerate(body[1:], start=2):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValidationError(f"line {number} of the backup: {error}", field="backup") from error
        if not entry.key.startswith(keys.ROOT):
            raise ValidationError(f"line {number} of the backup: {entry.key!r} is no key of Loch Ness", field="backup")
        entries[entry.key] = entry.value
    return Backup(header, entries)


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What restoring does: which keys it adds, changes and deletes, and the transactions that do it, in order.

    `alive` names who works on the store now: daemons and controllers, by the keys they hold under leases. `unfinished`
    are the jobs of the backup that are left out.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    alive: tuple[str, ...]
    unfinished: tuple[str, ...]
    transactions: tuple[Transaction, ...]

    @property
    def is_empty(self) -> bool:
        return not self.transactions


def decide_restore(backup: Backup, reading: Reading) -> RestorePlan:
    """How the store of `reading` (of Prefix(keys.ROOT)) becomes the backup; its leased keys stay."""
    alive = tuple(item.key for item in reading.ranges[0] if item.lease_id)
    held = {item.key: item for item in reading.ranges[0] if not item.lease_id}
    unfinished = tuple(key for key, value in backup.entries.items() if _is_unfinished(key, value))
    wanted = {key: value for key, value in backup.entries.items() if key not in unfinished and key not in alive}
    added = [key for key in wanted if key not in held]
    changed = [key for key in wanted if key in held and held[key].value != wanted[key]]
    deleted = [key for key in held if key not in wanted]
    steps: list[tuple[KeyUnchanged, Operation]] = [
        (KeyUnchanged(key, held[key].mod_revision if key in held else 0), Put(key, wanted[key]))
        for key in (*added, *changed)
    ]
    steps += [(KeyUnchanged(key, held[key].mod_revision), Delete(key)) for key in deleted]
    return RestorePlan(tuple(added), tuple(changed), tuple(deleted), alive, unfinished, tuple(_transactions(steps)))


def _is_unfinished(key: str, value: bytes) -> bool:
    if not key.startswith(keys.JOB_PATH):
        return False
    try:
        return not JobRecord.from_json(value).is_finished
    except ValidationError:
        return False  # fsck names it; nobody works on what cannot be read


def _transactions(steps: Sequence[tuple[KeyUnchanged, Operation]]) -> Iterable[Transaction]:
    for start in range(0, len(steps), MAX_TRANSACTION_OPS):
        compares, operations = zip(*steps[start : start + MAX_TRANSACTION_OPS], strict=True)
        yield Transaction(compares, operations)
