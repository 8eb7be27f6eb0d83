"""What did etcd's or gRPC's error mean for the caller: not reached, perhaps written, or wrongly asked?

Invariants:
1. A write is said to be `UnavailableError` only when it is certain that no member proposed it; in doubt it is
   `AmbiguousWriteError`. (gRPC resends a request by itself only when the server has not seen it, so an error that
   speaks of connecting means that this request was never sent.)
2. Every gRPC status has an answer; none reaches the caller as it is.
"""

from __future__ import annotations

from typing import Any, Final

import grpc

from lochness.errors import (
    AmbiguousWriteError,
    CompactedError,
    LeaseNotFoundError,
    LochnessError,
    UnavailableError,
    ValidationError,
)

#: Texts of errors that come up before a request leaves this process, or before a member proposes it.
_NEVER_PROPOSED: Final = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "empty address list",
    "errors resolving",
    "DNS resolution failed",  # the same in older gRPC
    "etcdserver: no leader",  # checked on arrival, because we ask for it (members.REQUIRE_LEADER)
    "raft proposal dropped",
    "etcdserver: too many requests",
    "etcdserver: user name is empty",  # authentication is on, and our certificate names nobody
    "etcdserver: invalid auth token",
)
#: The member answers and an election is to come or under way: asking again soon is all there is to do.
_BETWEEN_LEADERS: Final = ("etcdserver: no leader", "etcdserver: leader changed", "raft proposal dropped")
#: The member looked at the request and refused it.
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)
_MALFORMED: Final = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED}
)


def is_between_leaders(problem: LochnessError) -> bool:
    """Whether `problem` is that the cluster has no leader at the moment."""
    return any(marker in problem.message for marker in _BETWEEN_LEADERS)


def translate(error: Any, *, what: str, where: str, is_write: bool, meaning: str = "") -> LochnessError:
    """Our error for the gRPC `error` of the call `what` at the member `where`.

    `meaning`, if there is one, goes into its text in place of gRPC's own words.
    """
    code = error.code()
    text = error.details() or code.name
    message = f"etcd at {where}: {what} failed: {meaning or text}"
    if code is grpc.StatusCode.NOT_FOUND and "lease not found" in text:
        return LeaseNotFoundError(message)
    if "has been compacted" in text:
        return CompactedError(message, compact_revision=0)
    if "database space exceeded" in text:
        return UnavailableError(f"{message} (etcd takes no writes until it is compacted, defragmented and disarmed)")
    if code in _REFUSALS or any(marker in text for marker in _NEVER_PROPOSED):
        return UnavailableError(message)
    if code in _MALFORMED:
        return ValidationError(message)
    return AmbiguousWriteError(message) if is_write else UnavailableError(message)
