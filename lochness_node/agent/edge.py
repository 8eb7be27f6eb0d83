"""What does every request meet before its route: is it known, is it within its share, does its body come?

1. Refused are: 401 without the token, where there is one (all but /healthz); 429 over the rates, with Retry-After; 408
   when the body takes over BODY_LIMIT_S. Nothing of the application runs for the first two.
2. A refusal looks like every other error and carries the request's id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from lochness.clock import Clock
from lochness.http_connection import bounded_body
from lochness_node.agent.protection import Protection
from lochness_node.agent.rates import Rates
from lochness_node.agent.request_ids import with_request_ids

OPEN_TO_ALL: Final = "/healthz"


def guarded(app: ASGIApp, protection: Protection, rates: Rates, clock: Clock) -> ASGIApp:
    """`app` behind these rules. Runs on one event loop, as `rates` is not shared between threads."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        client = (scope.get("client") or ("", 0))[0]
        wait_s = rates.wait_s(client, clock.monotonic_s())
        if wait_s > 0:
            retry = (b"retry-after", str(math.ceil(wait_s)).encode())
            await _refuse(send, 429, "too_many_requests", "too many requests from this client", [retry])
            return
        if scope["path"] != OPEN_TO_ALL and not protection.admits(_authorization(scope["headers"])):
            ask = (b"www-authenticate", b'Bearer realm="lochness"')
            await _refuse(send, 401, "unauthorized", "the agent's token is required (Authorization: Bearer)", [ask])
            return
        await app(scope, bounded_body(receive), send)

    return with_request_ids(guard)


def _authorization(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The header's value, b"" when it is not there exactly once."""
    values = [value for name, value in headers if name == b"authorization"]
    return values[0] if len(values) == 1 else b""


async def _refuse(send: Send, code: int, reason: str, message: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = msgspec.json.encode({"message": message, "code": code, "reason": reason}) + b"\n"
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    start: Message = {"type": "http.response.start", "status": code, "headers": fields}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
