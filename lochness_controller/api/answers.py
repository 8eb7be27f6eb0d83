"""What does a success look like? JSON with a newline at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from litestar import Response
from litestar.types import Send

from lochness.model.record import JSONObject

JOB_ID_HEADER: Final = "X-Guest-Job-ID"
JSON: Final = "application/json"


class JSONLine(Response[Any]):
    """A body of JSON that ends with a newline. Content that is bytes is JSON already."""

    def __init__(self, content: Any, *, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code=status_code, headers=dict(headers or {}), media_type=JSON)

    def render(self, content: Any, media_type: str, enc_hook: Any = None) -> bytes:
        del media_type, enc_hook
        return _line(content)


def accepted(guest: JSONObject | bytes, job_id: str) -> JSONLine:
    """202 with the guest: the job `job_id` will do the rest."""
    return JSONLine(guest, status_code=202, headers={JOB_ID_HEADER: job_id})


def array_of(records: Iterable[bytes]) -> bytes:
    """A JSON array of records that are JSON already."""
    return b"[" + b",".join(records) + b"]"


def _line(content: object) -> bytes:
    """JSON and a newline; a long list has its newline already and is not copied for it."""
    encoded = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return encoded if encoded.endswith(b"\n") else encoded + b"\n"


async def send_json(send: Send, code: int, content: object, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """A whole answer, from outside of the framework. Content that is bytes is JSON already."""
    body = _line(content)
    fields = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": code, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
