"""How is a guest's serial console read? Plain text: its end, or what came since.

    GET /guests/ID/console                      the last 64 KiB
    GET /guests/ID/console?limit_bytes=1000     the last 1000 bytes
    GET /guests/ID/console?since=1000           what follows the first 1000 bytes, 64 KiB at most

X-Console-End is the place behind the answer: give it as `since` to go on. A guest that was started anew begins at 0.
"""

from __future__ import annotations

from typing import Final

from litestar import Response, get

from lochness.errors import ValidationError
from lochness_node.agent.aside import aside
from lochness_node.agent.asked import agent_of, parsed_guest_id
from lochness_node.agent.guests.console import CONSOLE_BYTES, CONSOLE_BYTES_MAX
from lochness_node.agent.replies import AnyRequest

END_HEADER: Final = "X-Console-End"
_PLACE_DIGITS_MAX: Final = 18


@get("/guests/{guest_id:str}/console")
async def console(request: AnyRequest, guest_id: str) -> Response[bytes]:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    since = _number(request, "since")
    limit_bytes = _number(request, "limit_bytes")
    if limit_bytes is None:
        limit_bytes = CONSOLE_BYTES
    if not 1 <= limit_bytes <= CONSOLE_BYTES_MAX:
        raise ValidationError(
            f"limit_bytes must be from 1 to {CONSOLE_BYTES_MAX}, got {limit_bytes}", field="limit_bytes"
        )
    part = await aside(lambda: agent.console(id, since=since, limit_bytes=limit_bytes))
    return Response(
        # A guest may write what it likes, and its last letter may not be whole yet.
        part.content.decode(errors="replace").encode(),
        media_type="text/plain",
        headers={END_HEADER: str(part.end), "X-Content-Type-Options": "nosniff"},
    )


def _number(request: AnyRequest, name: str) -> int | None:
    text = str(request.query_params.get(name, ""))
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _PLACE_DIGITS_MAX):
        raise ValidationError(f"{name} must be a number of bytes, got {text[:40]!r}", field=name)
    return int(text)


CONSOLE_ROUTES: Final = (console,)
