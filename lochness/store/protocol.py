"""What every store offers: an ordered map with revisions, compares, transactions, leases and watches.

The model is etcd v3's. Two implementations keep it, `lochness.store.etcd` and `lochness.store.memory`; one contract
suite (tests/contract/store) runs on both.

Invariants:
1. Every committed change gets the next revision; all changes of one transaction share one revision.
2. A transaction commits wholly, when every compare holds, or raises `ConflictError` and changes nothing.
3. `read` answers all its selectors at one and the same revision.
4. A watch delivers every change from `start_revision` on, in order, each once, or raises; it never skips silently.
5. Every call has a deadline. A read that misses it raises `UnavailableError`; a write raises `AmbiguousWriteError`, or
   `UnavailableError` when it is certain that the write did not happen.

Not guaranteed: that two different stores number their revisions alike; that a watch batch holds exactly one
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import msgspec

#: etcd's default `--max-txn-ops`: at most this many compares, and at most this many operations, per transaction.
MAX_TRANSACTION_OPS = 128


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """One key as it stood at the revision of the read.

    `mod_revision` is the revision of its last change, `create_revision` that of its creation; `lease_id` is 0 when the
    key is not attached to a lease.
    """

    # A Struct, as all of these small parts: a full view is 20,000 of them, a second of placing as many compares and
    # operations, and each is made and hashed in a third of a frozen dataclass's time.

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease_id: int = 0


class Key(msgspec.Struct, frozen=True, gc=False):
    """Selects one key."""

    key: str


class Prefix(msgspec.Struct, frozen=True, gc=False):
    """Selects every key that begins with `prefix` (which must not be empty)."""

    prefix: str
    keys_only: bool = False
    """Leave the values out (they read as b"")."""


Selector = Key | Prefix


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer of `Store.read`: one tuple of key-values per selector, in key order, all as of `revision`."""

    revision: int
    ranges: tuple[tuple[KeyValue, ...], ...]

    def one(self, index: int = 0) -> KeyValue | None:
        """The only key-value of selector `index`, None when there is none."""
        items = self.ranges[index]
        return items[0] if items else None


class KeyUnchanged(msgspec.Struct, frozen=True, gc=False):
    """Holds when `key`'s mod_revision is `mod_revision`. 0 means: the key does not exist."""

    key: str
    mod_revision: int


class KeyExists(msgspec.Struct, frozen=True, gc=False):
    """Holds when `key` exists, whatever its value."""

    key: str


class PrefixUnchanged(msgspec.Struct, frozen=True, gc=False):
    """Holds when no key under `prefix` was created or modified after `revision`.

    Deletions are not seen: use it where a deletion only makes the decision safer (a freed claim).
    """

    prefix: str
    revision: int


Compare = KeyUnchanged | KeyExists | PrefixUnchanged


class Put(msgspec.Struct, frozen=True, gc=False):
    """Set `key` to `value`, attached to lease `lease_id` (0: none, which also detaches)."""

    key: str
    value: bytes
    lease_id: int = 0


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove `key`; no error when it does not exist."""

    key: str


class DeletePrefix(msgspec.Struct, frozen=True, gc=False):
    """Remove every key under `prefix` (which must not be empty)."""

    prefix: str


Operation = Put | Delete | DeletePrefix


def name_of(part: Compare | Operation) -> str:
    """The key that it is about, or the prefix."""
    return part.prefix if isinstance(part, PrefixUnchanged | DeletePrefix) else part.key


class Change(msgspec.Struct, frozen=True, gc=False):
    """One change a watch saw. `value` is None for a deletion."""

    key: str
    value: bytes | None
    mod_revision: int
    create_revision: int = 0


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes in order. Everything up to and including `revision` has been delivered; resume from `revision + 1`.

    A batch without changes is a progress mark.
    """

    revision: int
    changes: tuple[Change, ...]


class Watch(Protocol):
    """An open watch. Used by one thread; `close` may be called from any."""

    def next(self, timeout_s: float) -> WatchBatch | None:
        """The next batch, None when nothing came within `timeout_s`.

        Raises CompactedError when the start revision is gone (read anew, watch from there), UnavailableError when the
        stream broke or the watch was closed (open another from the last batch's `revision + 1`).
        """
        ...

    def close(self) -> None:
        """End the watch; a `next` that waits raises UnavailableError at once."""
        ...


class Store(Protocol):
    """See the module's invariants. Safe to share between threads."""

    def read(self, *selectors: Selector, revision: int = 0) -> Reading:
        """All selectors at one revision: the current one (linearizable), or the given past `revision`.

        Raises UnavailableError; CompactedError for a past revision that is gone; ValidationError for more than
        MAX_TRANSACTION_OPS selectors, for none, for an empty key or prefix, and for a revision that is yet to come.
        """
        ...

    def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        """Perform all operations if all compares hold; answers the new revision.

        Raises ConflictError (with the keys and prefixes whose compare failed), UnavailableError, AmbiguousWriteError,
        LeaseNotFoundError (a put named a lease that is gone; nothing changed), ValidationError (a key written twice,
        too many operations, no operation).
        """
        ...

    def begin_commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> Callable[[], int]:
        """As `commit`, without waiting: the answer is a function that waits, and answers and raises what `commit` does.

        The function must be called, once: a store in memory performs only then. Several that were begun may take
        effect in any order. Raises ValidationError and UnavailableError itself: then nothing was sent.
        """
        ...

    def grant_lease(self, ttl_s: int) -> int:
        """A new lease's id. The store may raise a very small ttl to its minimum."""
        ...

    def keep_alive(self, lease_id: int) -> int:
        """Renew the lease once; answers its ttl in seconds. Raises LeaseNotFoundError, UnavailableError."""
        ...

    def revoke_lease(self, lease_id: int) -> None:
        """End the lease and delete its keys. No error when it is gone already."""
        ...

    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        """Watch every key under `prefix` from `start_revision` on.

        A full key watches that key and all it is a prefix of. Opening succeeds also when the store is away or the
        revision is gone: `Watch.next` says so. Raises ValidationError (an empty prefix, a `start_revision` below 1),
        and UnavailableError when the store was closed.
        """
        ...

    def close(self) -> None:
        """End every watch and connection. Later calls raise UnavailableError."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
