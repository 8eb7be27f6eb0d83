"""What happens to every request before and after it is routed? An ASGI application around another.

Invariants:
1. Every answer carries X-Request-ID: the client's own where it is fit to be logged, else a fresh one.
2. A path that ends in a slash is answered with 301 and the path without it, whatever the method.
3. A complete body is sent gzipped to a client that asks for it. A streamed one is passed on as it comes.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from typing import Any, Final

from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    Message,
    Receive,
    Scope,
    Send,
)
from structlog.contextvars import bound_contextvars

from lochness.ids import new_id

REQUEST_ID_HEADER: Final = "X-Request-ID"

#: Larger bodies are compressed off the event loop.
_COMPRESS_HERE_MAX_BYTES: Final = 32 << 10
_COMPRESS_LEVEL: Final = 3
#: How much of a long answer is written in one go.
_SLICE_BYTES: Final = 256 << 10

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
_STATE_NAME: Final = "request_id"


def request_id_of(scope: Any) -> str:
    """The id of the request; "" outside of one."""
    id: str = scope.get("state", {}).get(_STATE_NAME, "")
    return id


def who_of(scope: Any) -> str:
    """The name of the token that the request came with, "anonymous" for none."""
    who: str = scope.get("state", {}).get("who", "")
    return who


class Edge:
    """The outermost ASGI application; everything goes through it to `inner`."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        scope.setdefault("state", {})[_STATE_NAME] = request_id
        answer = _Answer(send, request_id, takes_gzip=_takes_gzip(headers.get(b"accept-encoding", "")))
        path = scope["path"]
        if path != "/" and path.endswith("/"):
            await _redirect(answer, scope)
            return
        with bound_contextvars(request_id=request_id):
            await self._inner(scope, receive, answer.send)


class _Answer:
    """Passes an answer on, with the request's id, compressed where that is wanted."""

    def __init__(self, send: Send, request_id: str, *, takes_gzip: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._takes_gzip = takes_gzip
        self._start: HTTPResponseStartEvent | None = None

    async def send(self, message: Message) -> None:
        # The start is held back until the body is known: whether it is complete decides on the headers.
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            start, self._start = self._start, None
            await self._begin(start, message)
        else:
            await self._send(message)

    async def _begin(self, start: HTTPResponseStartEvent, first: HTTPResponseBodyEvent) -> None:
        body: bytes | memoryview = first.get("body", b"")
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"x-request-id"]
        headers.append((b"x-request-id", self._request_id.encode("latin-1")))
        if body:
            headers.append((b"vary", b"Accept-Encoding"))
        if self._takes_gzip and body and not first.get("more_body", False):
            body = await _compressed(bytes(body))
            headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
            headers += [(b"content-encoding", b"gzip"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": start["status"], "headers": headers})
        while len(body) > _SLICE_BYTES:  # others get their turn in between, and the client's pace is kept
            piece, body = bytes(body[:_SLICE_BYTES]), memoryview(body)[_SLICE_BYTES:]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await self._send(
            {"type": "http.response.body", "body": bytes(body), "more_body": first.get("more_body", False)}
        )


async def _compressed(body: bytes) -> bytes:
    if len(body) <= _COMPRESS_HERE_MAX_BYTES:
        return gzip.compress(body, _COMPRESS_LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, _COMPRESS_LEVEL, mtime=0)


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip (or everything) and does not refuse it with q=0."""
    for part in accept_encoding.split(","):
        name, _, parameters = part.partition(";")
        if name.strip().lower() in ("gzip", "x-gzip", "*"):
            quality = parameters.replace(" ", "").lower().removeprefix("q=")
            return not re.fullmatch(r"0(\.0*)?", quality)
    return False


async def _redirect(answer: _Answer, scope: Scope) -> None:
    # As it came, still escaped. Several slashes in front would name another host.
    path = b"/" + bytes(scope["raw_path"]).strip(b"/")
    query = bytes(scope["query_string"])
    headers = [(b"location", path + (b"?" + query if query else b"")), (b"content-type", b"application/json")]
    await answer.send({"type": "http.response.start", "status": 301, "headers": headers})
    await answer.send({"type": "http.response.body", "body": b"{}\n", "more_body": False})
