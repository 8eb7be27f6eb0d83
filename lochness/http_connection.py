"""How long may a client hold a connection without asking for anything, and a request's body be on its way?

1. A connection on which no request begins is closed after UNUSED_LIMIT_S to twice that, also when a head comes letter
   by letter; one that began is answered.
2. A body that is not complete BODY_LIMIT_S after its request began is refused with 408; a client that leaves in the
   middle of it has made a bad request, and nobody else a mistake.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from litestar.exceptions import HTTPException
from litestar.types import Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Longer than the pause between two requests: who comes again is not cut off.
UNUSED_LIMIT_S: Final = 90.0
#: From the first to the last piece of a request's body.
BODY_LIMIT_S: Final = 30.0


class Connection(H11Protocol):
    """uvicorn's, with rule 1."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        close_when_unused(self)


class _Protocol(Protocol):
    """What uvicorn's protocols have in common."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    cycle: Any


def close_when_unused(protocol: _Protocol, last: object = None) -> None:
    """Rule 1 for the connection of `protocol`, from its beginning on."""
    if protocol.transport.is_closing():
        return
    cycle = protocol.cycle
    now = cycle or protocol
    if last is now and (cycle is None or cycle.response_complete):
        protocol.transport.close()
        return
    protocol.loop.call_later(UNUSED_LIMIT_S, close_when_unused, protocol, now)


def bounded_body(receive: Receive) -> Receive:
    """`receive` with rule 2; called when the request begins."""
    deadline_s = asyncio.get_running_loop().time() + BODY_LIMIT_S
    cycle = getattr(receive, "__self__", None)  # uvicorn's, where nothing stands in between
    arrived: asyncio.Event | None = getattr(cycle, "message_event", None)
    is_complete = False

    async def receive_in_time() -> Any:
        nonlocal is_complete
        if is_complete:  # what comes now is the client's leaving, however late
            return await receive()
        try:
            if arrived is not None and arrived.is_set():  # there already, as most are: no timer
                message = await receive()
            else:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
        except TimeoutError as error:
            raise HTTPException(f"the body did not come within {BODY_LIMIT_S:g} s", status_code=408) from error
        if message["type"] == "http.disconnect":
            raise HTTPException("the client left before the body was complete", status_code=400)
        is_complete = not (message["type"] == "http.request" and message.get("more_body"))
        return message

    return receive_in_time
