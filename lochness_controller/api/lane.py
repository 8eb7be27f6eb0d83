"""How are the requests that come most often answered? Beside the framework, whose work for one is several times theirs.

Creating a guest, reading one record, and the whole lists of guests and hypervisors. An ASGI application around the
framework's, which has a handler for each of them too: for its document, and for whatever is not exactly of this form.

Invariants:
1. The answer is the framework's: the same status, headers and body, the same errors.
2. What is not plainly one of these requests goes to the framework: another spelling of a path, a query, If-Match, an id
   in another form, a record that is not there, a body that is too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from litestar.concurrency import sync_to_thread
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from lochness.ids import is_normal_id
from lochness_controller.api.answers import JOB_ID_HEADER, send_json
from lochness_controller.api.bodies import again, read_body
from lochness_controller.api.edge import request_id_of
from lochness_controller.api.guests import Creating, create_of
from lochness_controller.api.mirror import Mirror
from lochness_controller.api.picture import Picture
from lochness_controller.api.preconditions import etag
from lochness_controller.api.problems import send_problem

_LISTS: Final[Mapping[str, Callable[[Picture], bytes]]] = {
    "guests": Picture.guests,
    "hypervisors": Picture.hypervisors,
}
_RECORDS: Final[Mapping[str, Callable[[Picture, str], tuple[bytes, int] | None]]] = {
    "guests": Picture.guest,
    "hypervisors": Picture.hypervisor,
}
_JOB_ID: Final = JOB_ID_HEADER.lower().encode()


class Lane:
    """Around `inner`. A body of more than `body_max_bytes` is for `inner` to refuse."""

    def __init__(self, inner: ASGIApp, creating: Creating, mirror: Mirror, *, body_max_bytes: int) -> None:
        self._inner = inner
        self._creating = creating
        self._mirror = mirror
        self._body_max_bytes = body_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            if scope["method"] == "POST":
                if scope["path"] == "/guests" and not any(name == b"if-match" for name, _ in scope["headers"]):
                    await self._create(scope, receive, send)
                    return
            elif scope["method"] == "GET" and not scope["query_string"]:
                kind, slash, id = scope["path"][1:].partition("/")
                is_ours = is_normal_id(id) if slash else True
                if is_ours and kind in _RECORDS and await self._show(kind, id, scope, send):
                    return
        await self._inner(scope, receive, send)

    async def _create(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        try:
            body, is_complete = await read_body(receive, self._body_max_bytes)
            if is_complete and len(body) <= self._body_max_bytes:
                guest, job_id = await create_of(self._creating, body, request_id_of(scope))
                await send_json(send, 202, guest, ((_JOB_ID, job_id.encode()),))
                return
        except Exception as error:  # as in the framework: nobody else's request ends by it
            await send_problem(scope, send, error)
            return
        await self._inner(scope, again(body, receive, is_all=is_complete), send)

    async def _show(self, kind: str, id: str, scope: HTTPScope, send: Send) -> bool:
        """Answer with the record, without `id` with the list; False when there is none."""
        try:
            found = await sync_to_thread(self._found, kind, id)
        except Exception as error:  # as above
            await send_problem(scope, send, error)
            return True
        if found is not None:
            await send_json(send, 200, *found)
        return found is not None

    def _found(self, kind: str, id: str) -> tuple[bytes, Iterable[tuple[bytes, bytes]]] | None:
        """The record's or the list's JSON, and the headers that are its own."""
        picture = self._mirror.current()
        if not id:
            return _LISTS[kind](picture), ()
        found = _RECORDS[kind](picture, id)
        if found is None:
            return None
        return found[0], [(name.lower().encode(), value.encode()) for name, value in etag(found[1]).items()]
