"""What should be on this hypervisor, as of one revision of the store?

1. Everything in a `Desired` is of the same revision, however many guests there are.
2. One malformed record makes one guest unknown (`problems`), not the others.

Not guaranteed: that it is still so. What acts on it compares again (`WriteStatus`), or asks again (`verify_start`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal, TypeVar, get_args

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.guest import GuestRecord, GuestStatus, Power, PowerRecord
from lochness.model.record import Record
from lochness.store.protocol import MAX_TRANSACTION_OPS, Key, KeyValue, Prefix, Store

SomeRecord = TypeVar("SomeRecord", bound=Record)
RestartPolicy = Literal["always", "on-failure", "never"]

#: What operators write into a guest's metadata.
RESTART: Final = "restart"
BOOT_ORDER: Final = "boot_order"
DEFAULT_BOOT_ORDER: Final = 100

_KEYS_PER_GUEST: Final = 3
_GUESTS_PER_READ: Final = MAX_TRANSACTION_OPS // _KEYS_PER_GUEST


@dataclass(frozen=True, slots=True)
class Wanted:
    """One guest bound here. `power` None: nobody has said yet. `status` is what we wrote last, None for nothing.

    `binding_revision` is the fencing token, `power_revision` the mod_revision of the wish (0: none). Without
    `has_record` there is no guest, only a binding that was left behind. `restart` (None: as configured) and
    `boot_order` (lower starts earlier) come from the guest's metadata.
    """

    binding_revision: int
    power: Power | None = None
    power_revision: int = 0
    has_record: bool = True
    status: GuestStatus | None = None
    restart: RestartPolicy | None = None
    boot_order: int = DEFAULT_BOOT_ORDER


@dataclass(frozen=True, slots=True)
class Desired:
    """The guests bound to `hypervisor_id`, by id. `problems`: per guest, which of its records is unreadable and why."""

    hypervisor_id: str
    guests: Mapping[str, Wanted]
    problems: Mapping[str, str] = field(default_factory=dict)


def read_desired(store: Store, hypervisor_id: str) -> Desired:
    """Raises UnavailableError, and CompactedError when the store was compacted between two parts of the reading."""
    reading = store.read(Prefix(keys.hypervisor_guests(hypervisor_id), keys_only=True))
    bindings = {keys.last_part(binding.key): binding.mod_revision for binding in reading.ranges[0]}
    guests: dict[str, Wanted] = {}
    problems: dict[str, str] = {}
    remaining = iter(bindings)
    while ids := list(islice(remaining, _GUESTS_PER_READ)):
        selectors = [Key(key) for id in ids for key in (keys.guest(id), keys.guest_power(id), keys.guest_status(id))]
        ranges = store.read(*selectors, revision=reading.revision).ranges
        for index, id in enumerate(ids):
            found = [item[0] if item else None for item in ranges[_KEYS_PER_GUEST * index :][:_KEYS_PER_GUEST]]
            guests[id] = _wanted(id, bindings[id], found, problems)
    return Desired(hypervisor_id, guests, problems)


def _wanted(id: str, binding_revision: int, found: Sequence[KeyValue | None], problems: dict[str, str]) -> Wanted:
    record, power, status = found
    wish = _parsed(PowerRecord, id, power, problems)
    guest = _parsed(GuestRecord, id, record, problems)
    metadata = guest.metadata if guest else {}
    return Wanted(
        binding_revision=binding_revision,
        power=wish.desired if wish else None,
        power_revision=power.mod_revision if power else 0,
        has_record=record is not None,
        status=_parsed(GuestStatus, id, status, problems),
        restart=_restart(id, metadata, problems),
        boot_order=_boot_order(id, metadata, problems),
    )


def _restart(id: str, metadata: Mapping[str, str], problems: dict[str, str]) -> RestartPolicy | None:
    given = metadata.get(RESTART, "")
    for policy in get_args(RestartPolicy):
        if given == policy:
            return policy  # type: ignore[no-any-return]  # one of the literals
    if given:
        problems[id] = f"metadata {RESTART} must be {', '.join(get_args(RestartPolicy))}, got {given!r}: not used"
    return None


def _boot_order(id: str, metadata: Mapping[str, str], problems: dict[str, str]) -> int:
    given = metadata.get(BOOT_ORDER, "").strip()
    if not given:
        return DEFAULT_BOOT_ORDER
    if given.isascii() and given.isdigit() and len(given) <= 9:
        return int(given)
    problems[id] = f"metadata {BOOT_ORDER} must be a whole number from 0, got {given!r}: not used"
    return DEFAULT_BOOT_ORDER


def _parsed(kind: type[SomeRecord], id: str, found: KeyValue | None, problems: dict[str, str]) -> SomeRecord | None:
    if found is None:
        return None
    try:
        return kind.from_json(found.value)
    except ValidationError as error:
        problems[id] = f"{found.key}: {error.message}"
        return None
