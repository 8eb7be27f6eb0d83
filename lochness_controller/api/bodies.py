"""How is a request's body read outside of the framework, so that the framework can still read it?"""

from __future__ import annotations

from typing import Any

from litestar.types import HTTPRequestEvent, Receive


async def read_body(receive: Receive, max_bytes: int) -> tuple[bytes, bool]:
    """The request's body, and whether that is all of it: one that is larger is not read on."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return message.get("body", b""), True
    body = bytearray()
    while True:
        if message["type"] != "http.request":
            return bytes(body), False
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body), True
        if len(body) > max_bytes:
            return bytes(body), False
        message = await receive()


def again(body: bytes, receive: Receive, *, is_all: bool = True) -> Receive:
    """`receive` with what was read of the body in front."""
    first: list[HTTPRequestEvent] = [{"type": "http.request", "body": body, "more_body": not is_all}]

    async def receive_again() -> Any:
        return first.pop() if first else await receive()

    return receive_again
