"""What is seen of every hypervisor's heartbeat? Kept by a watch of lochness/hypervisors/.

Invariants:
1. Since when a heartbeat is missing is the moment this view first missed it, kept until it is back.
2. A change costs what it touches: `take_changed` answers only the hypervisors of which something has changed.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Final

from lochness import keys
from lochness.clock import Clock
from lochness.errors import ValidationError
from lochness.guest_state import LostRecord
from lochness.model.job import rfc3339
from lochness.store.protocol import Reading, WatchBatch
from lochness_controller.liveness.decide import Hypervisor

_PARTS: Final = frozenset({"metadata", "resources", "heartbeat", "lost"})


class LivenessView:
    """Safe to share between threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, Hypervisor] = {}
        self._changed: set[str] = set()

    def take_snapshot(self, reading: Reading) -> None:
        """Take over a reading of all of lochness/hypervisors/."""
        with self._lock:
            missing_since = {id: seen.missing_since for id, seen in self._seen.items()}
            self._changed |= self._seen.keys()
            self._seen = {}
            for item in reading.ranges[0]:
                self._take(item.key, item.value, item.mod_revision)
            for id, seen in self._seen.items():
                if not seen.is_beating:
                    since = missing_since.get(id) or rfc3339(self._clock.now())
                    self._seen[id] = replace(seen, missing_since=since)

    def take_batch(self, batch: WatchBatch) -> bool:
        """Take over what the watch brought; answers whether there is something for `take_changed`."""
        with self._lock:
            for change in batch.changes:
                self._take(change.key, change.value, change.mod_revision)
            return bool(self._changed)

    def take_changed(self) -> list[Hypervisor]:
        """Those of which something has changed since the last call."""
        with self._lock:
            found = [self._seen.get(id, Hypervisor(id)) for id in self._changed]
            self._changed = set()
            return found

    def put_back(self, ids: set[str]) -> None:
        """These are to be among those of the next `take_changed`."""
        with self._lock:
            self._changed |= ids

    def _take(self, key: str, value: bytes | None, mod_revision: int) -> None:
        # First what costs least: bindings, which are most, are nothing to us.
        if key.rpartition("/")[2] not in _PARTS:
            return
        id, rest = keys.object_id(key, keys.HYPERVISOR_PATH)
        if rest not in _PARTS:
            return
        seen = self._seen.get(id) or Hypervisor(id, missing_since=rfc3339(self._clock.now()))
        match rest:
            case "metadata":
                seen = replace(seen, is_registered=value is not None)
            case "resources":
                seen = replace(seen, is_known=value is not None)
            case "heartbeat" if value is None:
                seen = replace(seen, is_beating=False, missing_since=rfc3339(self._clock.now()))
            case "heartbeat":
                seen = replace(seen, is_beating=True, missing_since="")
            case "lost":
                revision = mod_revision if value is not None else 0
                seen = replace(seen, mark_revision=revision, mark_since=_since(value))
        self._changed.add(id)
        if seen == Hypervisor(id, missing_since=seen.missing_since):
            self._seen.pop(id, None)
        else:
            self._seen[id] = seen


def _since(mark: bytes | None) -> str:
    """ "" as well for a mark that this version can not read: it is one all the same."""
    try:
        return LostRecord.from_json(mark).since if mark is not None else ""
    except ValidationError:
        return ""
