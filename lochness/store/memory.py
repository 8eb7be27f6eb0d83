"""What does a store in one process's memory do that behaves as etcd does? For tests, demos and embedding.

Invariants: those of `lochness.store.protocol`, and
1. Everything happens under one lock, so every call is atomic and at once.
2. A lease ends when its time has passed by `clock` and anybody calls, or a watch waits; nothing happens in between.
3. Past revisions are kept back to the last compaction. It happens by `compact`, and by itself when more than twice
   `history_changes` changes are kept: then all but the last `history_changes` go.

Not guaranteed: anything across processes or restarts; speed beyond some 100,000 keys (a new key is inserted into a
sorted list).
"""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from lochness.errors import CompactedError, ConflictError, LeaseNotFoundError, UnavailableError, ValidationError
from lochness.store.protocol import (
    Change,
    Compare,
    Delete,
    DeletePrefix,
    Key,
    KeyExists,
    KeyUnchanged,
    KeyValue,
    Operation,
    PrefixUnchanged,
    Put,
    Reading,
    Selector,
    Watch,
    WatchBatch,
)
from lochness.store.validation import check_selectors, check_transaction, check_ttl, check_watch

DEFAULT_HISTORY_CHANGES: Final = 100_000

_LEASE_POLL_S: Final = 0.02  # how often a waiting watch looks whether a lease has ended


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    expires_at_s: float
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Version:
    """A key's state from `mod_revision` on; `kv` is None when it was deleted then."""

    mod_revision: int
    kv: KeyValue | None


class MemoryStore:
    """A `lochness.store.protocol.Store` in this process.

    `clock` gives monotonic seconds and decides when leases end; `history_changes` bounds what is kept of the past.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, history_changes: int = DEFAULT_HISTORY_CHANGES
    ) -> None:
        self._clock = clock
        self._history_changes = history_changes
        self._state = threading.Condition()  # over everything below; told on every change
        self._revision = 1
        self._compact_revision = 0
        self._live: dict[str, KeyValue] = {}
        self._live_keys: list[str] = []
        self._versions: dict[str, list[_Version]] = {}
        self._history: list[Change] = []
        self._leases: dict[int, _Lease] = {}
        self._lease_ids = itertools.count(1)
        self._watches: set[_MemoryWatch] = set()
        self._is_closed = False

    # -- reading

    def read(self, *selectors: Selector, revision: int = 0) -> Reading:
        """See `Store.read`."""
        check_selectors(selectors, revision)
        with self._state:
            self._begin()
            if revision > self._revision:
                raise ValidationError(f"revision {revision} is yet to come, the store is at {self._revision}")
            if revision and revision < self._compact_revision:
                raise self._compacted(f"a read at revision {revision}")
            find = self._find_live if revision in (0, self._revision) else self._finder_at(revision)
            return Reading(revision or self._revision, tuple(tuple(find(selector)) for selector in selectors))

    def _find_live(self, selector: Selector) -> Iterator[KeyValue]:
        if isinstance(selector, Key):
            kv = self._live.get(selector.key)
            return iter((kv,) if kv is not None else ())
        found = (self._live[key] for key in self._live_under(selector.prefix))
        return map(_without_value, found) if selector.keys_only else found

    def _live_under(self, prefix: str) -> Iterator[str]:
        for index in range(bisect_left(self._live_keys, prefix), len(self._live_keys)):
            key = self._live_keys[index]
            if not key.startswith(prefix):
                return
            yield key

    def _finder_at(self, revision: int) -> Callable[[Selector], Iterator[KeyValue]]:
        def find(selector: Selector) -> Iterator[KeyValue]:
            if isinstance(selector, Key):
                keys = [selector.key] if selector.key in self._versions else []
            else:
                keys = sorted(key for key in self._versions if key.startswith(selector.prefix))
            for key in keys:
                kv = _version_at(self._versions[key], revision)
                if kv is not None:
                    yield kv if isinstance(selector, Key) or not selector.keys_only else _without_value(kv)

        return find

    # -- writing

    def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        """See `Store.commit`."""
        check_transaction(compares, operations)
        with self._state:
            self._begin()
            failed = [name for compare in compares if (name := self._failed(compare))]
            if failed:
                raise ConflictError(f"changed meanwhile: {', '.join(failed)}", keys=failed)
            for operation in operations:
                if isinstance(operation, Put) and operation.lease_id:
                    self._lease(operation.lease_id)
            self._perform(operations)
            return self._revision

    def begin_commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> Callable[[], int]:
        """See `Store.begin_commit`."""
        check_transaction(compares, operations)
        return lambda: self.commit(compares, operations)

    def _failed(self, compare: Compare) -> str:
        """The key or prefix when `compare` does not hold, else ""."""
        match compare:
            case KeyUnchanged(key, mod_revision):
                kv = self._live.get(key)
                return "" if (kv.mod_revision if kv is not None else 0) == mod_revision else key
            case KeyExists(key):
                return "" if key in self._live else key
            case PrefixUnchanged(prefix, revision):
                is_changed = any(self._live[key].mod_revision > revision for key in self._live_under(prefix))
                return prefix if is_changed else ""

    def _perform(self, operations: Sequence[Operation]) -> None:
        """All changes share the next revision; without any change there is none, as in etcd."""
        revision = self._revision + 1
        before = len(self._history)
        for operation in operations:
            match operation:
                case Put():
                    self._put(operation, revision)
                case Delete(key):
                    self._delete(key, revision)
                case DeletePrefix(prefix):
                    for key in tuple(self._live_under(prefix)):
                        self._delete(key, revision)
        if len(self._history) == before:
            return
        self._revision = revision
        if len(self._history) > 2 * self._history_changes:
            self._compact(self._history[-self._history_changes - 1].mod_revision)
        self._state.notify_all()

    def _put(self, put: Put, revision: int) -> None:
        old = self._live.get(put.key)
        if old is None:
            insort(self._live_keys, put.key)
        elif old.lease_id:
            self._leases[old.lease_id].keys.discard(put.key)
        if put.lease_id:
            self._leases[put.lease_id].keys.add(put.key)
        kv = KeyValue(put.key, put.value, old.create_revision if old else revision, revision, put.lease_id)
        self._live[put.key] = kv
        self._versions.setdefault(put.key, []).append(_Version(revision, kv))
        self._history.append(Change(put.key, put.value, revision, kv.create_revision))

    def _delete(self, key: str, revision: int) -> None:
        old = self._live.pop(key, None)
        if old is None:
            return
        del self._live_keys[bisect_left(self._live_keys, key)]
        if old.lease_id:
            self._leases[old.lease_id].keys.discard(key)
        self._versions[key].append(_Version(revision, None))
        self._history.append(Change(key, None, revision))

    # -- leases

    def grant_lease(self, ttl_s: int) -> int:
        """See `Store.grant_lease`. Every ttl from 1 s on is kept as it is."""
        check_ttl(ttl_s)
        with self._state:
            self._begin()
            lease_id = next(self._lease_ids)
            self._leases[lease_id] = _Lease(ttl_s, self._clock() + ttl_s)
            return lease_id

    def keep_alive(self, lease_id: int) -> int:
        """See `Store.keep_alive`."""
        with self._state:
            self._begin()
            lease = self._lease(lease_id)
            lease.expires_at_s = self._clock() + lease.ttl_s
            return lease.ttl_s

    def revoke_lease(self, lease_id: int) -> None:
        """See `Store.revoke_lease`."""
        with self._state:
            self._begin()
            self._end_lease(lease_id)

    def _lease(self, lease_id: int) -> _Lease:
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFoundError(f"lease {lease_id} has expired or was revoked", lease_id=lease_id)
        return lease

    def _end_lease(self, lease_id: int) -> None:
        lease = self._leases.get(lease_id)
        if lease is not None:
            self._perform([Delete(key) for key in sorted(lease.keys)])
            del self._leases[lease_id]

    def _begin(self) -> None:
        """What every call and every waiting watch does first: refuse when closed, end the leases whose time is over."""
        if self._is_closed:
            raise UnavailableError("the store is closed")
        if self._leases:
            now_s = self._clock()
            for lease_id in [id for id, lease in self._leases.items() if lease.expires_at_s <= now_s]:
                self._end_lease(lease_id)

    # -- history

    def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`.

        Reads before it and watches that start at or before it are gone from then on.

        Raises CompactedError when that has happened already, ValidationError for a revision yet to come.
        """
        with self._state:
            self._begin()
            if revision > self._revision:
                raise ValidationError(f"revision {revision} is yet to come, the store is at {self._revision}")
            if revision <= self._compact_revision:
                raise self._compacted(f"a compaction at revision {revision}")
            self._compact(revision)

    def _compact(self, revision: int) -> None:
        for watch in self._watches:
            watch.gather()  # an open watch that was up to date does not lose what it has not handed out yet
        self._compact_revision = revision
        del self._history[: _first_after(self._history, revision)]
        for key, versions in tuple(self._versions.items()):
            current = bisect_right(versions, revision, key=lambda version: version.mod_revision) - 1
            if current >= 0 and versions[current].kv is None:
                current += 1
            del versions[: max(current, 0)]
            if not versions:
                del self._versions[key]

    def _compacted(self, what: str) -> CompactedError:
        return CompactedError(
            f"{what}: the store is compacted up to {self._compact_revision}", compact_revision=self._compact_revision
        )

    # -- watching

    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        """See `Store.watch`."""
        check_watch(prefix, start_revision)
        with self._state:
            self._begin()
            watch = _MemoryWatch(self, prefix, start_revision)
            self._watches.add(watch)
            return watch

    def close(self) -> None:
        """See `Store.close`."""
        with self._state:
            self._is_closed = True
            self._watches.clear()
            self._state.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _MemoryWatch:
    """A watch of a MemoryStore, whose lock it shares: it reads the store's history where it left off."""

    def __init__(self, store: MemoryStore, prefix: str, start_revision: int) -> None:
        self._store = store
        self._prefix = prefix
        self._seen_revision = start_revision - 1
        self._waiting: deque[Change] = deque()
        self._is_closed = False
        self._problem: CompactedError | None = None

    def next(self, timeout_s: float) -> WatchBatch | None:
        """See `Watch.next`."""
        store = self._store
        deadline_s = time.monotonic() + timeout_s
        with store._state:
            while True:
                if self._is_closed:
                    raise UnavailableError("the watch is closed")
                store._begin()
                self.gather()
                if self._waiting:
                    changes = tuple(self._waiting)
                    self._waiting.clear()
                    return WatchBatch(changes[-1].mod_revision, changes)
                if self._problem is not None:
                    raise self._problem
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    return None
                store._state.wait(min(remaining_s, _LEASE_POLL_S) if store._leases else remaining_s)

    def gather(self) -> None:
        """Take over the changes since the last time. Called with the store's lock held."""
        store = self._store
        if self._problem is not None or self._seen_revision >= store._revision:
            return
        if self._seen_revision < store._compact_revision:
            self._problem = store._compacted(f"a watch from revision {self._seen_revision + 1}")
            return
        first = _first_after(store._history, self._seen_revision)
        self._waiting.extend(change for change in store._history[first:] if change.key.startswith(self._prefix))
        self._seen_revision = store._revision

    def close(self) -> None:
        """See `Watch.close`."""
        store = self._store
        with store._state:
            self._is_closed = True
            store._watches.discard(self)
            store._state.notify_all()


def _first_after(history: Sequence[Change], revision: int) -> int:
    return bisect_right(history, revision, key=lambda change: change.mod_revision)


def _version_at(versions: Sequence[_Version], revision: int) -> KeyValue | None:
    index = bisect_right(versions, revision, key=lambda version: version.mod_revision) - 1
    return versions[index].kv if index >= 0 else None


def _without_value(kv: KeyValue) -> KeyValue:
    return KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.lease_id)
