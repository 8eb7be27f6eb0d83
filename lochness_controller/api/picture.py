"""What do all guests and hypervisors look like to clients? Kept key by key, so that a list costs no reading.

Invariants:
1. The picture is that of one revision of the store, `revision`: changes are taken in whole batches.
2. A record is encoded when it is asked for, and again only when one of its keys, or for a guest the liveness of its
   hypervisor, has changed.

Not guaranteed: that records which this version can not read are listed; `lochness fsck` names them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

from lochness import keys
from lochness.errors import LochnessError
from lochness.guest_state import ALIVE, HypervisorSeen
from lochness.store.protocol import Change, KeyValue, Prefix
from lochness_controller.api.answers import array_of
from lochness_controller.api.shown import GuestParts, HypervisorParts

#: What a picture is made from.
PICTURE_SELECTORS: Final = (Prefix(keys.GUEST_PATH), Prefix(keys.HYPERVISOR_PATH))

#: How many letters ids that begin alike have in common: UUIDs make 256 pieces.
_ALIKE: Final = 2

_UNREGISTERED: Final = HypervisorSeen(is_registered=False, is_alive=False)


class _Parts(Protocol):
    revision: int

    @property
    def is_empty(self) -> bool: ...


AnyParts = TypeVar("AnyParts", bound=_Parts)


class _Table(Generic[AnyParts]):
    """Parts by id, and the list of all.

    Ids that begin alike stand together, and their piece of the list is kept until one of them changes: a list is made
    of 256 pieces, not of 20,000 records.
    """

    def __init__(self, make: Callable[[], AnyParts], kind: str) -> None:
        self.parts: dict[str, AnyParts] = {}
        self._make = make
        self._kind = kind
        self._pieces: dict[str, dict[str, AnyParts]] = {}
        self._joined: dict[str, bytes] = {}  # of pieces in which nothing has changed since
        self._whole: bytes | None = None

    def of(self, id: str) -> AnyParts:
        found = self.parts.get(id)
        if found is None:
            found = self.parts[id] = self._make()
            self._pieces.setdefault(id[:_ALIKE], {})[id] = found
        return found

    def drop_if_empty(self, id: str) -> None:
        if self.parts[id].is_empty:
            del self.parts[id]
            piece = self._pieces[id[:_ALIKE]]
            del piece[id]
            if not piece:
                del self._pieces[id[:_ALIKE]]

    def touch(self, id: str) -> None:
        """What the list says of it has changed."""
        self._joined.pop(id[:_ALIKE], None)
        self._whole = None

    def each(self, encode: Callable[[AnyParts], bytes | None]) -> list[tuple[str, bytes]]:
        """All records with their ids, in the order of these."""
        return [found for name in sorted(self._pieces) for found in _each(self._pieces[name], encode)]

    def whole(self, encode: Callable[[AnyParts], bytes | None]) -> bytes:
        """All records as one JSON array and a newline."""
        if self._whole is None:
            joined = self._joined
            for name in self._pieces.keys() - joined.keys():
                joined[name] = b",".join(record for _, record in _each(self._pieces[name], encode))
            self._whole = array_of(piece for _, piece in sorted(joined.items()) if piece) + b"\n"
        return self._whole

    def one(self, id: str, encode: Callable[[AnyParts], bytes | None]) -> tuple[bytes, int] | None:
        parts = self.parts.get(id)
        if parts is None or not parts.revision:
            return None
        record = encode(parts)
        if record is None:
            raise LochnessError(f"the record of {self._kind} {id} can not be read by this version: lochness fsck")
        return record, parts.revision


def _each(piece: dict[str, AnyParts], encode: Callable[[AnyParts], bytes | None]) -> Iterable[tuple[str, bytes]]:
    for id, parts in sorted(piece.items()):
        if (record := encode(parts)) is not None:
            yield id, record


class Picture:
    """Safe to share between threads."""

    def __init__(self, revision: int = 0, items: Iterable[KeyValue] = ()) -> None:
        self.revision = revision
        self._lock = threading.Lock()
        self._guests = _Table(GuestParts, "guest")
        self._hypervisors = _Table(HypervisorParts, "hypervisor")
        self._changed_hypervisors: set[str] = set()  # whose guests are to be shown anew
        for item in items:
            self._take(item.key, item.value, item.mod_revision)

    def replace(self, other: Picture) -> None:
        """Be what `other` is. `other` is not used any more."""
        with self._lock:
            self._guests, self._hypervisors = other._guests, other._hypervisors
            self._changed_hypervisors = other._changed_hypervisors
            self.revision = other.revision

    def apply(self, changes: Iterable[Change], revision: int) -> None:
        """Take in what has changed up to `revision`."""
        with self._lock:
            for change in changes:
                self._take(change.key, change.value, change.mod_revision)
            self.revision = max(revision, self.revision)

    def guests(self) -> bytes:
        """Every guest, as one JSON array and a newline."""
        with self._lock:
            self._settle()
            return self._guests.whole(self._guest_json)

    def each_guest(self) -> list[tuple[Any, bytes]]:
        """Every guest's id and JSON, in order."""
        with self._lock:
            self._settle()
            return [*self._guests.each(self._guest_json)]

    def guest(self, id: str) -> tuple[bytes, int] | None:
        """A guest's JSON and its record's mod_revision. Raises LochnessError for one that can not be read."""
        with self._lock:
            self._settle()
            return self._guests.one(id, self._guest_json)

    def hypervisors(self) -> bytes:
        """Every hypervisor, as one JSON array and a newline."""
        with self._lock:
            return self._hypervisors.whole(HypervisorParts.json)

    def each_hypervisor(self) -> list[tuple[Any, bytes]]:
        """Every hypervisor's id and JSON, in order."""
        with self._lock:
            return [*self._hypervisors.each(HypervisorParts.json)]

    def hypervisor(self, id: str) -> tuple[bytes, int] | None:
        """As `guest`."""
        with self._lock:
            return self._hypervisors.one(id, HypervisorParts.json)

    def _settle(self) -> None:
        """However many hypervisors came or went since: one look at the guests."""
        if self._changed_hypervisors:
            for id, guest in self._guests.parts.items():
                if guest.hypervisors_changed(self._changed_hypervisors):
                    self._guests.touch(id)
            self._changed_hypervisors = set()

    def _guest_json(self, parts: GuestParts) -> bytes | None:
        return parts.json(self._seen)

    def _seen(self, hypervisor: str) -> HypervisorSeen:
        if not hypervisor:
            return ALIVE
        parts = self._hypervisors.parts.get(hypervisor)
        return parts.seen if parts is not None else _UNREGISTERED

    def _take(self, key: str, value: bytes | None, mod_revision: int) -> None:
        if key.startswith(keys.GUEST_PATH):
            id, rest = keys.object_id(key, keys.GUEST_PATH)
            self._guests.of(id).take(rest, value, mod_revision)
            self._guests.drop_if_empty(id)
            self._guests.touch(id)
        elif key.startswith(keys.HYPERVISOR_PATH):
            id, rest = keys.object_id(key, keys.HYPERVISOR_PATH)
            if "/" in rest and rest != f"config/{keys.CORDONED}":
                return  # other settings, mappings, bindings: not shown here
            if self._hypervisors.of(id).take(rest, value, mod_revision):
                self._changed_hypervisors.add(id)
            self._hypervisors.drop_if_empty(id)
            self._hypervisors.touch(id)
