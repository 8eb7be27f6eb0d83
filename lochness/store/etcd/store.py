"""How are reads, transactions and leases said to etcd? `lochness.store.protocol` is the promise kept here.

Invariants:
1. One call to the store is one request to etcd, a transaction that conflicts two: the second brings, as of one
   revision, the names of what failed with it.
2. Reads are linearizable: they go through the leader's quorum, never from one member's memory alone.
3. Nothing is sent that `lochness.store.validation` refuses.

Requests are built here and sent on the client's channel, because the client's own `transaction` hides the revision
and its `get` reads one range only.

Not guaranteed: `CompactedError.compact_revision` of a read is 0, etcd does not tell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from etcd3 import etcdrpc

from lochness.errors import ConfigurationError, ConflictError, LeaseNotFoundError, UnavailableError
from lochness.store.endpoints import parse_endpoints
from lochness.store.etcd import wire
from lochness.store.etcd.members import Members
from lochness.store.etcd.tls import TLSFiles
from lochness.store.etcd.watch import WATCH_SILENCE_LIMIT_S, EtcdWatch
from lochness.store.etcd.wire import encode_key, prefix_end
from lochness.store.protocol import (
    Compare,
    Key,
    KeyExists,
    KeyUnchanged,
    KeyValue,
    Operation,
    PrefixUnchanged,
    Reading,
    Selector,
    Watch,
    name_of,
)
from lochness.store.validation import check_selectors, check_transaction, check_ttl, check_watch

_NAMES_IN_MESSAGE: Final = 5


class EtcdStore:
    """A `lochness.store.protocol.Store` in an etcd cluster.

    `endpoints` are the members' URLs, "http(s)://HOST[:PORT]"; the three files are PEM, for https; `timeout_s` bounds
    every request, and a transaction that conflicts makes two. Raises ConfigurationError. Does not connect: the first
    call does.

    `watch_silence_limit_s`: a watch from which nothing has come for half of it asks its member for a sign of life; with
    none after the whole of it, `Watch.next` raises UnavailableError and the next watch is opened at another member.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        timeout_s: float = 5.0,
        watch_silence_limit_s: float = WATCH_SILENCE_LIMIT_S,
    ) -> None:
        if watch_silence_limit_s <= 0:
            raise ConfigurationError(f"a watch's silence limit must be above 0 s, got {watch_silence_limit_s:g}")
        self._members = Members(parse_endpoints(endpoints), TLSFiles(ca_file, cert_file, key_file), timeout_s)
        self._watch_silence_limit_s = watch_silence_limit_s
        self._watches: set[EtcdWatch] = set()
        self._watches_lock = threading.Lock()

    def read(self, *selectors: Selector, revision: int = 0) -> Reading:
        """See `Store.read`."""
        check_selectors(selectors, revision)
        ranges = [_range_of(selector, revision) for selector in selectors]
        if len(ranges) == 1:
            answer = self._members.call(
                "range", etcdrpc.RangeRequest(**ranges[0]), what="a read", is_write=False, may_repeat=True
            )
            return Reading(revision or answer.header.revision, (_key_values(answer),))
        request = etcdrpc.TxnRequest(success=[{"request_range": item} for item in ranges])
        answer = self._members.call("txn", request.SerializeToString(), what="a read", is_write=False, may_repeat=True)
        return Reading(
            revision or answer.header.revision,
            tuple(_key_values(response.response_range) for response in answer.responses),
        )

    def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        """See `Store.commit`."""
        check_transaction(compares, operations)
        request = wire.transaction(compares, operations)
        answer = self._members.call("txn", request, what="a transaction", is_write=True, may_repeat=False)
        return _revision(answer) if answer.succeeded else self._commit_again(compares, operations)

    def begin_commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> Callable[[], int]:
        """See `Store.begin_commit`. It is on its way when this returns, without a thread of its own."""
        check_transaction(compares, operations)
        answered = self._members.begin_write("txn", wire.transaction(compares, operations), what="a transaction")

        def outcome() -> int:
            answer = answered()
            return _revision(answer) if answer.succeeded else self._commit_again(compares, operations)

        return outcome

    def _commit_again(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        """A transaction that was refused, so it is asked what stands in its way. Commits it when nothing does any more.

        Not asked the first time: a range to read for each compare, which almost always holds, is a quarter of etcd's
        work on a transaction.
        """
        request = wire.transaction(compares, operations, has_evidence=True)
        answer = self._members.call("txn", request, what="a transaction", is_write=True, may_repeat=False)
        if not answer.succeeded:
            raise _conflict(compares, answer)
        return _revision(answer)

    def grant_lease(self, ttl_s: int) -> int:
        """See `Store.grant_lease`. After an AmbiguousWriteError grant anew: a lease nobody knows just expires."""
        check_ttl(ttl_s)
        request = etcdrpc.LeaseGrantRequest(TTL=ttl_s)
        lease_id: int = self._members.call(
            "grant_lease", request, what="granting a lease", is_write=True, may_repeat=True
        ).ID
        return lease_id

    def keep_alive(self, lease_id: int) -> int:
        """See `Store.keep_alive`."""
        request = etcdrpc.LeaseKeepAliveRequest(ID=lease_id)
        answer = self._members.call("keep_alive", request, what="renewing a lease", is_write=False, may_repeat=True)
        if answer is None:
            raise UnavailableError(f"renewing lease {lease_id}: etcd ended the stream without an answer")
        ttl_s: int = answer.TTL
        if ttl_s <= 0:
            raise LeaseNotFoundError(f"lease {lease_id} has expired or was revoked", lease_id=lease_id)
        return ttl_s

    def revoke_lease(self, lease_id: int) -> None:
        """See `Store.revoke_lease`."""
        request = etcdrpc.LeaseRevokeRequest(ID=lease_id)
        try:
            self._members.call("revoke_lease", request, what="revoking a lease", is_write=True, may_repeat=True)
        except LeaseNotFoundError:
            return

    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        """See `Store.watch`. The watch must be closed: it holds a thread and a stream."""
        check_watch(prefix, start_revision)
        key = encode_key(prefix)
        with self._watches_lock:
            watch = EtcdWatch(
                self._members,
                key=key,
                range_end=prefix_end(key),
                start_revision=start_revision,
                silence_limit_s=self._watch_silence_limit_s,
                on_end=self._forget,
            )
            self._watches.add(watch)
        watch.start()
        return watch

    def _forget(self, watch: EtcdWatch) -> None:
        with self._watches_lock:
            self._watches.discard(watch)

    def close(self) -> None:
        """See `Store.close`."""
        with self._watches_lock:
            watches = tuple(self._watches)
        for watch in watches:
            watch.close()
        self._members.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key_values(answer: Any) -> tuple[KeyValue, ...]:
    return tuple(
        [
            KeyValue(str(kv.key, "utf-8", "surrogateescape"), kv.value, kv.create_revision, kv.mod_revision, kv.lease)
            for kv in answer.kvs
        ]
    )


def _range_of(selector: Selector, revision: int) -> dict[str, Any]:
    if isinstance(selector, Key):
        return {"key": encode_key(selector.key), "revision": revision}
    prefix = encode_key(selector.prefix)
    return {
        "key": prefix,
        "range_end": prefix_end(prefix),
        "keys_only": selector.keys_only,
        "revision": revision,
    }


def _has_failed(compare: Compare, found: Any) -> bool:
    match compare:
        case KeyUnchanged(_, mod_revision):
            return (found[0].mod_revision if found else 0) != mod_revision
        case KeyExists():
            return not found
        case PrefixUnchanged():
            return bool(found)


def _revision(answer: Any) -> int:
    revision: int = answer.header.revision
    return revision


def _conflict(compares: Sequence[Compare], answer: Any) -> ConflictError:
    failed = [
        name_of(compare)
        for compare, response in zip(compares, answer.responses, strict=True)
        if _has_failed(compare, response.response_range.kvs)
    ]
    more = f" and {len(failed) - _NAMES_IN_MESSAGE} more" if len(failed) > _NAMES_IN_MESSAGE else ""
    return ConflictError(f"changed meanwhile: {', '.join(failed[:_NAMES_IN_MESSAGE])}{more}", keys=failed)
