"""Has the record that a client wants to change changed since it has seen it? ETag and If-Match.

A record's ETag is the revision of what operators write of it: a guest's state and a hypervisor's resources come and go
without another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import Request

from lochness.errors import PreconditionError


def etag(revision: int) -> dict[str, str]:
    """The header that tells a record's revision."""
    return {"ETag": f'"{revision}"'}


@dataclass(frozen=True, slots=True)
class Precondition:
    """The If-Match of a request; None: there is none, and any state will do."""

    tags: frozenset[str] | None = None

    @classmethod
    def of(cls, request: Request[Any, Any, Any]) -> Precondition:
        given = request.headers.get("if-match")
        if given is None or given.strip() == "*":
            return cls()
        return cls(frozenset(tag.strip() for tag in given.split(",")))

    def check(self, what: str, revision: int) -> None:
        """Raise PreconditionError unless `what` at this revision is what the client has seen."""
        if self.tags is not None and f'"{revision}"' not in self.tags:
            seen = ", ".join(sorted(self.tags))
            raise PreconditionError(f'{what} is at revision "{revision}", If-Match asks for {seen}')


async def refuse_where_there_is_no_revision(request: Request[Any, Any, Any]) -> None:
    """Before a handler: If-Match on what has no ETag would be taken for a promise.

    A coroutine, because the framework calls everything else in a thread: two changes of threads for every request.
    """
    is_kept = request.route_handler.opt.get("has_revision", False) or request.method in ("GET", "HEAD", "OPTIONS")
    if not is_kept and Precondition.of(request).tags is not None:
        raise PreconditionError(f"{request.method} {request.url.path} has no revision: If-Match can not be kept")
