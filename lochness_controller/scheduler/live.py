"""What does the cluster look like now? Kept in memory by watches, one of each kind of key, from full readings.

Invariants:
1. Everything is read and changed under `lock`; the fleet's own invariants hold between two holdings of it.
2. `is_current` says that every kind was read and no watch is known to be broken; then the fleet lags by milliseconds.
3. `reload` reads all kinds at one revision: what it shows is at most as old as the call.

Every RELIST_S, with jitter, each kind is read anew, whatever its watch said.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import Final

from lochness import events, keys
from lochness.log import get_logger
from lochness.placement.cluster import CLUSTER_SELECTORS
from lochness.placement.fleet import Fleet
from lochness.store.protocol import Key, Prefix, Reading, Selector, Store, WatchBatch
from lochness.store.watching import Watching

RELIST_S: Final = 600.0

_PATHS: Final = tuple(selector.prefix for selector in CLUSTER_SELECTORS)

_log = get_logger("scheduler")


class LiveCluster:
    """The fleet of `store`; current between `start` and `stop`, else as of the last `reload`."""

    def __init__(self, store: Store, *, relist_s: float = RELIST_S) -> None:
        self._store = store
        self.lock = threading.RLock()
        self.fleet = Fleet()
        self._seen = dict.fromkeys(_PATHS, 0)
        self._watchings = [
            Watching(
                store,
                path,
                on_snapshot=partial(self._read, path),
                on_batch=partial(self._take, path),
                on_transition=_tell,
                relist_s=relist_s,
            )
            for path in _PATHS
        ]

    @property
    def is_current(self) -> bool:
        return all(watching.is_current for watching in self._watchings)

    def has_seen(self, revision: int) -> bool:
        """Whether no change up to `revision` can be missing."""
        with self.lock:
            return min(self._seen.values()) >= revision

    def start(self) -> None:
        for watching in self._watchings:
            watching.start()

    def stop(self) -> None:
        for watching in self._watchings:
            watching.stop()

    def reload(self) -> None:
        """Read everything anew, at one revision. Raises UnavailableError."""
        reading = self._store.read(*CLUSTER_SELECTORS)
        with self.lock:
            for path, items in zip(_PATHS, reading.ranges, strict=True):
                self._seen[path] = max(self._seen[path], reading.revision)
                self.fleet.read(path, items, reading.revision)

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

    def _read(self, path: str, reading: Reading) -> None:
        with self.lock:
            if reading.revision < self._seen[path]:
                if self._store.read(Key(path)).revision >= self._seen[path]:
                    return  # `reload` was later, and the changes in between come by the watch
                self.fleet.clear()  # the store was restored from a backup: nothing known of it holds
                self._seen = dict.fromkeys(_PATHS, 0)
            self._seen[path] = reading.revision
            self.fleet.read(path, reading.ranges[0], reading.revision)

    def _take(self, path: str, batch: WatchBatch) -> None:
        with self.lock:
            news = [change for change in batch.changes if change.mod_revision > self._seen[path]]
            self._seen[path] = max(self._seen[path], batch.revision)
            self.fleet.take(path, news, batch.revision)


def _tell(event: str, fields: object) -> None:
    assert isinstance(fields, dict)
    if event == events.WATCH_RECOVERED:
        _log.info(event, **fields)
    elif event == events.PASS_FAILED:
        _log.error(event, **fields)
    else:
        _log.warning(event, **fields)
