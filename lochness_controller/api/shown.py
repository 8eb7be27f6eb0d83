"""What does a client see of a guest and of a hypervisor: which keys are joined, and how? Pure.

A guest's JSON has, after WIRE.md's fields, "power" (what it should be) and "status" (what is seen of it); a
hypervisor's has "alive", "alive_since" while it beats and "lost_since" while its heartbeat is missed, and "cordoned",
the reason, while no new guest may come.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from contextlib import suppress

import msgspec

from lochness.errors import ValidationError
from lochness.guest_state import HypervisorSeen, LostRecord, shown_status
from lochness.model.guest import GuestRecord, GuestStatus, PowerRecord
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.model.record import JSONObject
from lochness.model.resources import ResourcesRecord


def guest_fields(record: GuestRecord, power: PowerRecord, status: GuestStatus, seen: HypervisorSeen) -> JSONObject:
    """The guest, whose hypervisor was `seen` so."""
    shown = shown_status(status, record.hypervisor, seen)
    fields = record.to_fields()
    fields["power"] = power.desired
    fields["status"] = {
        "state": shown.state,
        "reason": shown.reason,
        "since": shown.since,
        "hypervisor": shown.hypervisor,
    }
    return fields


def hypervisor_fields(
    record: HypervisorRecord, seen: HypervisorSeen, cordoned: str, *, alive_since: str = ""
) -> JSONObject:
    """The hypervisor, which was `seen` so; `record` has its resources, `cordoned` is why no new guest may come."""
    fields = record.to_fields()
    fields["alive"] = seen.is_alive
    if alive_since:
        fields["alive_since"] = alive_since
    if seen.lost_since and not seen.is_alive:
        fields["lost_since"] = seen.lost_since
    if cordoned:
        fields["cordoned"] = cordoned
    return fields


class GuestParts:
    """What the keys of one guest say, taken in and dropped one by one, and the JSON of it."""

    __slots__ = ("_hypervisor", "_json", "metadata", "power", "revision", "status")

    def __init__(self) -> None:
        self.metadata: bytes | None = None
        self.power: bytes | None = None
        self.status: bytes | None = None
        self.revision = 0
        self._hypervisor = ""
        self._json: bytes | None = None

    @property
    def is_empty(self) -> bool:
        return self.metadata is None and self.power is None and self.status is None

    def take(self, rest: str, value: bytes | None, mod_revision: int) -> None:
        """The key that ends in `rest` has this value now (None: it is gone)."""
        match rest:
            case "metadata":
                self.metadata, self.revision = value, mod_revision if value is not None else 0
            case "power":
                self.power = value
            case "status":
                self.status = value
            case _:
                return
        self._json = None

    def hypervisors_changed(self, ids: Set[str]) -> bool:
        """Whether these hypervisors live is another matter now; answers whether that concerns this guest."""
        if self._hypervisor not in ids:
            return False
        self._json = None
        return True

    def json(self, seen: Callable[[str], HypervisorSeen]) -> bytes | None:
        """The guest as clients see it; None for no guest, and for one that this version can not read."""
        if self._json is None and self.metadata is not None:
            try:
                record = GuestRecord.from_json(self.metadata)
                power = PowerRecord.from_json(self.power) if self.power else PowerRecord()
                status = GuestStatus.from_json(self.status) if self.status else GuestStatus()
            except ValidationError:
                return None
            self._hypervisor = record.hypervisor
            self._json = msgspec.json.encode(guest_fields(record, power, status, seen(record.hypervisor)))
        return self._json


class HypervisorParts:
    """What the keys of one hypervisor say that clients see, taken in and dropped one by one, and the JSON of it."""

    __slots__ = ("_json", "cordoned", "heartbeat", "lost", "metadata", "resources", "revision")

    def __init__(self) -> None:
        self.metadata: bytes | None = None
        self.resources: bytes | None = None
        self.lost: bytes | None = None
        self.cordoned: bytes | None = None
        self.heartbeat: bytes | None = None
        self.revision = 0
        self._json: bytes | None = None

    @property
    def is_empty(self) -> bool:
        parts = (self.metadata, self.resources, self.lost, self.cordoned, self.heartbeat)
        return all(part is None for part in parts)

    @property
    def is_alive(self) -> bool:
        return self.heartbeat is not None

    @property
    def alive_since(self) -> str:
        """Since when its present heartbeat lasts, RFC 3339; "" when it has none, or does not tell."""
        if self.heartbeat:
            with suppress(ValidationError):
                return HeartbeatRecord.from_json(self.heartbeat).since
        return ""

    @property
    def seen(self) -> HypervisorSeen:
        """Whether it is registered and beats, and since when it does not."""
        since = ""
        if self.lost:
            with suppress(ValidationError):  # else since when is not known
                since = LostRecord.from_json(self.lost).since
        return HypervisorSeen(is_registered=self.metadata is not None, is_alive=self.is_alive, lost_since=since)

    def take(self, rest: str, value: bytes | None, mod_revision: int) -> bool:
        """As of a guest's; answers whether its guests are to be shown anew."""
        match rest:
            case "metadata":
                was_registered = self.metadata is not None
                self.metadata, self.revision = value, mod_revision if value is not None else 0
                self._json = None
                return was_registered != (value is not None)
            case "resources":
                self.resources = value
                self._json = None
                return False
            case "heartbeat":
                was_alive, self.heartbeat = self.is_alive, value
                self._json = None
                return was_alive != self.is_alive
            case "config/cordoned":
                self.cordoned = value
                self._json = None
            case "lost":
                self.lost = value
                self._json = None
                return True
        return False

    def json(self) -> bytes | None:
        """The hypervisor as clients see it; None for none, and for one that this version can not read."""
        if self._json is None and self.metadata is not None:
            try:
                record = HypervisorRecord.from_json(self.metadata)
                if self.resources:
                    reported = ResourcesRecord.from_json(self.resources)
                    record.total_resources, record.available_resources = reported.total, reported.available
                cordoned = (self.cordoned or b"").decode(errors="replace")
            except ValidationError:
                return None
            self._json = msgspec.json.encode(
                hypervisor_fields(record, self.seen, cordoned, alive_since=self.alive_since)
            )
        return self._json
