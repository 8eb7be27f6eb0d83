"""What does the cluster look like now? Kept in memory by a watch, from full readings.

Invariants:
1. Everything is read and changed under `lock`; the fleet's own invariants hold between two holdings of it.
2. `is_current` says that all was read and the watch is not known to be broken; then the fleet lags by milliseconds.
3. `reload` reads all at one revision: what it shows is at most as old as the call.

Every RELIST_S, with jitter, all is read anew, whatever the watch said.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final

from lochness import events, keys
from lochness.log import get_logger
from lochness.placement.cluster import CLUSTER_SELECTORS, ClusterView
from lochness.placement.fleet import Fleet
from lochness.store.protocol import Change, Key, KeyValue, Prefix, Reading, Selector, Store, WatchBatch
from lochness.store.watching import Watching

RELIST_S: Final = 600.0
#: How long a refusal waits for the watch to bring what came before its job.
CATCH_UP_LIMIT_S: Final = 0.25

#: A store that was away for longer than the hypervisors' leases has ended them when it is back, and they beat again
#: within some seconds (lochness_node.heartbeat: a retry each second, and the call that waits meanwhile). So long after
#: the watch is there again, a missing heartbeat does not yet tell that a hypervisor is away.
SETTLE_S: Final = 10.0

#: How many records of new guests are kept for who places them (some MB); the oldest go first.
NEW_GUESTS_MAX: Final = 10_000

_PATHS: Final = tuple(selector.prefix for selector in CLUSTER_SELECTORS)

_log = get_logger("scheduler")


class LiveCluster:
    """The fleet of `store`; current between `start` and `stop`, else as of the last `reload`."""

    def __init__(self, store: Store, *, relist_s: float = RELIST_S, settle_s: float = SETTLE_S) -> None:
        self._store = store
        self._settle_s = settle_s
        self.lock = threading.RLock()
        self._arrived = threading.Condition(self.lock)
        self.fleet = Fleet()
        self._seen = 0
        self._settled_at_s = 0.0  # time.monotonic()
        #: Guests' records that the watch brought and that were neither changed nor placed since.
        self._new_guests: dict[str, KeyValue] = {}
        self._watching = Watching(
            store,
            keys.ROOT,  # all of it: the job that asks for a guest's place tells how far the view has come, too
            on_snapshot=self._read,
            on_batch=self._take,
            on_transition=self._hear,
            relist_s=relist_s,
            selectors=CLUSTER_SELECTORS,
        )

    @property
    def is_current(self) -> bool:
        return self._watching.is_current

    @property
    def seen(self) -> int:
        """Up to this revision nothing is missing. Read it under `lock`, with what it is about."""
        return self._seen

    @property
    def is_settling(self) -> bool:
        """Whether the store is away, or is back for less than SETTLE_S and may lack heartbeats that are about to be
        there. It is back when the watch is, or when it could be read: a watch that stays away ends it, too."""
        return time.monotonic() < self._settled_at_s

    def has_seen(self, revision: int, *, limit_s: float = CATCH_UP_LIMIT_S) -> bool:
        """Whether no change up to `revision` can be missing; waits so long for it."""
        with self._arrived:
            return self._arrived.wait_for(lambda: self._seen >= revision, limit_s if self.is_current else 0)

    def snapshot(self) -> tuple[int, ClusterView] | None:
        """The cluster as it is now and the revision that it is known up to; None when the watch is behind.

        What is being placed at the moment counts as there. Raises UnavailableError.
        """
        before = self._seen
        revision = self._store.read(Key(keys.ROOT)).revision
        if revision < before or not self.is_current or not self.has_seen(revision):
            return None  # a store whose revisions went back was restored: what is known of it does not hold
        with self.lock:
            return self._seen, self.fleet.snapshot()

    def start(self) -> None:
        self._watching.start()

    def stop(self) -> None:
        self._watching.stop()

    def pop_new_guest(self, id: str) -> KeyValue | None:
        """The guest's record as it was created, once; None: it is to be read.

        What the watch has not brought yet is missing from it: a compare with its revision has to say.
        """
        with self.lock:
            return self._new_guests.pop(id, None) if self.is_current else None

    def reload(self) -> None:
        """Read everything anew, at one revision. Raises UnavailableError."""
        reading = self._store.read(*CLUSTER_SELECTORS)
        self._watching.expect(reading.revision)
        with self.lock:
            self._settled_at_s = min(self._settled_at_s, time.monotonic() + self._settle_s)
            self._take_over(reading)

    def reread(self, hypervisors: Iterable[str], addresses: Iterable[tuple[str, str]]) -> None:
        """Read these hypervisors and these (subnet, ip) anew, at one revision. Raises UnavailableError."""
        hosts, pairs = tuple(dict.fromkeys(hypervisors)), tuple(dict.fromkeys(addresses))
        selectors: list[Selector] = [Prefix(keys.hypervisor_prefix(id)) for id in hosts]
        selectors += [Key(keys.subnet_address(subnet, ip)) for subnet, ip in pairs]
        if not selectors:
            return
        reading = self._store.read(*selectors)
        with self.lock:
            for id, items in zip(hosts, reading.ranges[: len(hosts)], strict=True):
                self.fleet.read(keys.hypervisor_prefix(id), items, reading.revision)
            for (subnet, ip), found in zip(pairs, reading.ranges[len(hosts) :], strict=True):
                self.fleet.read_address(subnet, ip, found[0].mod_revision if found else 0)

    def _hear(self, event: str, fields: Mapping[str, object]) -> None:
        if event == events.WATCH_LOST:
            self._settled_at_s = math.inf
        elif event == events.WATCH_RECOVERED:
            self._settled_at_s = time.monotonic() + self._settle_s
        _tell(event, fields)

    def _take_over(self, reading: Reading) -> None:
        self._seen = max(self._seen, reading.revision)
        for path, items in zip(_PATHS, reading.ranges, strict=True):
            self.fleet.read(path, items, reading.revision)
        self._arrived.notify_all()

    def _read(self, reading: Reading) -> None:
        with self.lock:
            if reading.revision < self._seen:
                if self._store.read(Key(keys.ROOT)).revision >= self._seen:
                    return  # `reload` was later, and the changes in between come by the watch
                self.fleet.clear()  # the store was restored from a backup: nothing known of it holds
                self._seen = 0
            self._new_guests.clear()
            self._take_over(reading)

    def _take(self, batch: WatchBatch) -> None:
        news: dict[str, list[Change]] = {path: [] for path in _PATHS}
        with self.lock:
            for change in batch.changes:
                path = _path_of(change.key)
                if path in news and change.mod_revision > self._seen:
                    news[path].append(change)
                elif path == keys.GUEST_PATH:
                    self._take_guest(change)
            self._seen = max(self._seen, batch.revision)
            for path, changes in news.items():
                self.fleet.take(path, changes, batch.revision)
            self._arrived.notify_all()

    def _take_guest(self, change: Change) -> None:
        id, rest = keys.object_id(change.key, keys.GUEST_PATH)
        if rest != "metadata":
            return
        self._new_guests.pop(id, None)
        value, revision = change.value, change.mod_revision
        if value is not None and change.create_revision == revision:
            self._new_guests[id] = KeyValue(change.key, value, revision, revision)
            if len(self._new_guests) > NEW_GUESTS_MAX:
                del self._new_guests[next(iter(self._new_guests))]


def _path_of(key: str) -> str:
    """The prefix of its kind."""
    return key[: key.find("/", len(keys.ROOT)) + 1]


def _tell(event: str, fields: Mapping[str, object]) -> None:
    if event == events.WATCH_RECOVERED:
        _log.info(event, **fields)
    elif event == events.PASS_FAILED:
        _log.error(event, **fields)
    else:
        _log.warning(event, **fields)
