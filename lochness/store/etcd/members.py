"""Which member of the cluster is asked, and what happens when it does not answer?

One gRPC channel per member, one of them current. A call that was certainly not carried out goes on to the next member
within the same deadline; whatever else fails makes the next call begin at the next member. A call that may be carried
out twice gives a silent member half of the time that is left and then goes on as well. While the cluster elects a
leader, a call waits for it within its deadline.

Invariants:
1. No connection is made before the first call.
2. A transaction is sent to a second member only when it is certain that the first one did not take it.
3. A call ends within its deadline, all members together.
4. A write that was sent more than once is `UnavailableError` only when that is true of every time.

Why not one channel over all addresses: gRPC then checks every member's certificate against one and the same name
(docs/adr), and a member that is frozen keeps getting its share of the calls.

Not guaranteed: an even load. Each process begins at a random member and stays while it answers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import etcd3
import grpc
from etcd3 import etcdrpc

from lochness.errors import AmbiguousWriteError, ConfigurationError, LochnessError, UnavailableError
from lochness.store.endpoints import Endpoint
from lochness.store.etcd.errors import is_between_leaders, translate
from lochness.store.etcd.tls import TLSFiles

#: A member that has lost its leader refuses at once instead of holding the request until its deadline.
REQUIRE_LEADER: Final = (("hasleader", "true"),)

_TXN_METHOD: Final = "/etcdserverpb.KV/Txn"

KEEPALIVE_TIME_S: Final = 10.0  # etcd ends connections that ping more often than every 5 s
KEEPALIVE_TIMEOUT_S: Final = 5.0
MAX_RECONNECT_BACKOFF_S: Final = 2.0
ELECTION_PAUSE_MIN_S: Final = 0.02
ELECTION_PAUSE_MAX_S: Final = 0.25


class Member:
    """One member's channel and the calls we make on it, looked up once."""

    def __init__(self, endpoint: Endpoint, tls: TLSFiles, connect_limit_s: float) -> None:
        self.endpoint = endpoint
        self.name = str(endpoint)
        try:
            self._client: Any = etcd3.client(
                host=endpoint.bracketed_host,
                port=endpoint.port,
                ca_cert=tls.ca,
                cert_cert=tls.cert,
                cert_key=tls.key,
                grpc_options=_channel_options(connect_limit_s),
            )
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{endpoint}: the certificate files are not usable: {error}") from error
        channel = self._client.channel
        kv = etcdrpc.KVStub(channel)
        lease = etcdrpc.LeaseStub(channel)
        self.range: Any = kv.Range
        #: Takes the request as bytes, see `lochness.store.etcd.wire`.
        self.txn: Any = channel.unary_unary(_TXN_METHOD, response_deserializer=etcdrpc.TxnResponse.FromString)
        self.grant_lease: Any = lease.LeaseGrant
        self.revoke_lease: Any = lease.LeaseRevoke
        self._keep_alive: Any = lease.LeaseKeepAlive
        self.watch: Any = etcdrpc.WatchStub(channel).Watch

    def keep_alive(self, request: Any, timeout: float, metadata: Any) -> Any:
        """One request and its answer, on a stream that ends with them. None when the stream ended without."""
        answer = None
        for answer in self._keep_alive(iter((request,)), timeout=timeout, metadata=metadata):  # noqa: B007  # the last
            pass
        return answer

    def close(self) -> None:
        self._client.close()


class Members:
    """All members of one cluster. Safe to share between threads."""

    def __init__(self, endpoints: Sequence[Endpoint], tls: TLSFiles, timeout_s: float) -> None:
        if timeout_s <= 0:
            raise ConfigurationError(f"etcd's timeout must be above 0 s, got {timeout_s:g}")
        tls.check(endpoints)
        self.timeout_s = timeout_s
        self._tls = tls
        connect_limit_s = timeout_s / max(len(endpoints), 2)  # a silent address must leave time for the others
        self._members = tuple(Member(endpoint, tls, connect_limit_s) for endpoint in endpoints)
        self._current = random.randrange(len(self._members))
        self._is_closed = False

    @property
    def current(self) -> Member:
        """The member to ask now. Raises UnavailableError when the store is closed."""
        if self._is_closed:
            raise UnavailableError("the store is closed")
        return self._members[self._current]

    def leave(self, member: Member) -> None:
        """Begin at another member from now on, if there is one and nobody has done so already."""
        if self._members[self._current] is member:
            self._current = (self._current + 1) % len(self._members)

    def call(
        self,
        rpc: str,
        request: Any,
        *,
        what: str,
        is_write: bool,
        may_repeat: bool,
        begun: tuple[float, Callable[[], Any]] | None = None,
    ) -> Any:
        """The answer to `request`; raises translated errors.

        `rpc` is the name of one of `Member`'s calls, `what` names it to people. `may_repeat`: nothing is worse when
        two members carry it out. `begun`: the deadline of one that has been asked for already, and how to get its
        answer.
        """
        deadline_s, begun_answer = begun or (time.monotonic() + self.timeout_s, None)
        unasked = len(self._members)
        pause_s = ELECTION_PAUSE_MIN_S
        doubt: AmbiguousWriteError | None = None
        leaderless: UnavailableError | None = None
        may_wait = False  # a member that was asked in this round waits for an election
        while True:
            unasked -= 1
            remaining_s = max(deadline_s - time.monotonic(), 0.001)
            limit_s = remaining_s / 2 if may_repeat and unasked else remaining_s
            try:
                if begun_answer is not None:
                    answer, begun_answer = begun_answer, None
                    return answer()
                return self._ask(rpc, request, limit_s, what=what, is_write=is_write)
            except AmbiguousWriteError as problem:
                doubt = doubt or problem
                if not may_repeat or not unasked or time.monotonic() >= deadline_s:
                    raise doubt from doubt.__cause__
            except UnavailableError as problem:
                if is_between_leaders(problem):
                    leaderless, may_wait = problem, True
                is_late = time.monotonic() + pause_s >= deadline_s
                if is_late or self._is_closed or not (unasked or may_wait):
                    error = doubt or leaderless or problem
                    raise error from error.__cause__
                if not unasked:
                    unasked, may_wait = len(self._members), False
                    time.sleep(pause_s * random.uniform(0.5, 1.0))
                    pause_s = min(2 * pause_s, ELECTION_PAUSE_MAX_S)

    def begin_write(self, rpc: str, request: Any, *, what: str) -> Callable[[], Any]:
        """As `call` of a write that may not be repeated, but asked for at once and waited for when the answer is
        called."""
        limit_s, member = self.timeout_s, self.current
        deadline_s = time.monotonic() + limit_s
        try:
            asked = getattr(member, rpc).future(request, timeout=limit_s, metadata=REQUIRE_LEADER)
        except ValueError as error:
            raise self._closed(error) from error

        def answer() -> Any:
            if asked.code() is grpc.StatusCode.OK:  # waits
                return asked.result()
            raise self._problem(asked, member, what, limit_s, is_write=True) from asked

        begun = (deadline_s, answer)
        return lambda: self.call(rpc, request, what=what, is_write=True, may_repeat=False, begun=begun)

    def _ask(self, rpc: str, request: Any, limit_s: float, *, what: str, is_write: bool) -> Any:
        member = self.current
        try:
            return getattr(member, rpc)(request, timeout=limit_s, metadata=REQUIRE_LEADER)
        except grpc.RpcError as error:
            raise self._problem(error, member, what, limit_s, is_write) from error
        except ValueError as error:
            raise self._closed(error) from error

    def _closed(self, error: ValueError) -> Exception:
        """`error` is how gRPC says that the channel was closed by another thread meanwhile."""
        return UnavailableError("the store is closed") if self._is_closed else error

    def _problem(self, error: Any, member: Member, what: str, limit_s: float, is_write: bool) -> LochnessError:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            what = f"{what} (limit {limit_s:.3g} s)"
        problem = self.translate(error, what=what, member=member, is_write=is_write)
        if problem.reason in ("unavailable", "ambiguous_write"):
            self.leave(member)
        return problem

    def translate(self, error: Any, *, what: str, member: Member, is_write: bool) -> LochnessError:
        """Our error for the gRPC `error` of the call `what` at `member`."""
        meaning = self._tls.explain(error.details() or "", member.endpoint)
        return translate(error, what=what, where=member.name, is_write=is_write, meaning=meaning)

    def close(self) -> None:
        self._is_closed = True
        for member in self._members:
            member.close()


def _channel_options(connect_limit_s: float) -> list[tuple[str, int]]:
    return [
        ("grpc.keepalive_time_ms", int(KEEPALIVE_TIME_S * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),  # 60 s by itself, whatever the line above says
        ("grpc.http2.max_pings_without_data", 0),  # a quiet watch must still notice that its member is gone
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", max(int(connect_limit_s * 1000), 100)),
        ("grpc.max_reconnect_backoff_ms", int(MAX_RECONNECT_BACKOFF_S * 1000)),
        ("grpc.max_receive_message_length", -1),  # a full view is larger than the default of 4 MiB
        ("grpc.enable_http_proxy", 0),  # a proxy set for the machine's web traffic is not on the way to etcd
        ("grpc.use_local_subchannel_pool", 1),  # closing one store never touches another's connection
    ]
