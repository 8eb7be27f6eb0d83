"""How is one request followed through the logs, from the client to the job it caused?

1. Every request has an id: the client's X-Request-ID when it is printable ASCII of at most 128 letters, else a new one.
2. It is on every answer, in every log entry of the request, and in the job.
"""

from __future__ import annotations

import re
from typing import Final

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from lochness.identity import new_id

_HEADER: Final = b"x-request-id"
_USABLE: Final = re.compile(rb"[\x21-\x7e]{1,128}")
STATE_NAME: Final = "request_id"


def with_request_ids(app: ASGIApp) -> ASGIApp:
    """`app` with this rule around it; its requests find their id in `request.state.request_id`."""

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(_HEADER, b"")
        id = given if _USABLE.fullmatch(given) else new_id().encode()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_HEADER, id)]
            await send(message)

        scope.setdefault("state", {})[STATE_NAME] = id.decode()
        with structlog.contextvars.bound_contextvars(request_id=id.decode()):
            await app(scope, receive, send_named)

    return named
