"""What each of etcd's and gRPC's errors is to the caller, for a read and for a write."""

from __future__ import annotations

import grpc
import pytest

from lochness.errors import (
    AmbiguousWriteError,
    CompactedError,
    LeaseNotFoundError,
    LochnessError,
    UnavailableError,
    ValidationError,
)
from lochness.store.etcd.errors import translate

Code = grpc.StatusCode


class Failure(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    def __init__(self, code: grpc.StatusCode, text: str | None) -> None:
        self._code = code
        self._text = text

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._text


#: status, text, what it is after a read, what after a write
TABLE: list[tuple[grpc.StatusCode, str | None, type[LochnessError], type[LochnessError]]] = [
    (Code.UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN", UnavailableError, UnavailableError),
    (Code.UNAVAILABLE, "connections to all backends failing", UnavailableError, UnavailableError),
    (Code.UNAVAILABLE, "errors resolving etcd.invalid:2379: not found", UnavailableError, UnavailableError),
    (Code.UNAVAILABLE, "etcdserver: no leader", UnavailableError, UnavailableError),
    (Code.UNAVAILABLE, "etcdserver: leader changed", UnavailableError, AmbiguousWriteError),
    (Code.UNAVAILABLE, "etcdserver: request timed out", UnavailableError, AmbiguousWriteError),
    (
        Code.UNAVAILABLE,
        "etcdserver: request timed out, possibly due to previous leader failure",
        UnavailableError,
        AmbiguousWriteError,
    ),
    (Code.UNAVAILABLE, "Socket closed", UnavailableError, AmbiguousWriteError),
    (Code.UNAVAILABLE, "recvmsg:Connection reset by peer", UnavailableError, AmbiguousWriteError),
    (Code.UNAVAILABLE, "keepalive watchdog timeout", UnavailableError, AmbiguousWriteError),
    (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", UnavailableError, AmbiguousWriteError),
    (Code.CANCELLED, "Channel closed!", UnavailableError, AmbiguousWriteError),
    (Code.INTERNAL, None, UnavailableError, AmbiguousWriteError),
    (Code.UNKNOWN, "whatever comes", UnavailableError, AmbiguousWriteError),
    (Code.UNKNOWN, "raft proposal dropped", UnavailableError, UnavailableError),
    (Code.NOT_FOUND, "etcdserver: requested lease not found", LeaseNotFoundError, LeaseNotFoundError),
    (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", CompactedError, CompactedError),
    (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", ValidationError, ValidationError),
    (Code.INVALID_ARGUMENT, "etcdserver: request is too large", ValidationError, ValidationError),
    (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", UnavailableError, UnavailableError),
    (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", UnavailableError, UnavailableError),
    (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max", ValidationError, ValidationError),
    (Code.PERMISSION_DENIED, "etcdserver: permission denied", UnavailableError, UnavailableError),
    (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", UnavailableError, UnavailableError),
    (Code.UNIMPLEMENTED, "unknown service etcdserverpb.KV", UnavailableError, UnavailableError),
]


@pytest.mark.parametrize(("code", "text", "read", "write"), TABLE, ids=lambda value: str(value)[:50])
def test_each_failure_is_what_the_caller_can_act_on(
    code: grpc.StatusCode, text: str | None, read: type[LochnessError], write: type[LochnessError]
) -> None:
    for is_write, kind in ((False, read), (True, write)):
        error = translate(Failure(code, text), what="a test", where="http://a:1", is_write=is_write)
        assert type(error) is kind
        assert "http://a:1" in error.message
        assert (text or code.name) in error.message


@pytest.mark.parametrize("code", list(Code))
def test_every_status_has_an_answer(code: grpc.StatusCode) -> None:
    for is_write in (False, True):
        assert isinstance(translate(Failure(code, "?"), what="a", where="b", is_write=is_write), LochnessError)
