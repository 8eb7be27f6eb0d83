"""How does an answer look, good or bad?

1. Every body is JSON and ends with a newline.
2. Every error is {"message", "code", "reason", ...details}; its code is the status. None carries a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from lochness import events
from lochness.errors import (
    ConflictError,
    DeadlineError,
    LochnessError,
    NotFoundError,
    UnavailableError,
    ValidationError,
)
from lochness.log import get_logger
from lochness.model.record import Record

JOB_HEADER: Final = "X-Guest-Job-ID"

#: The first that fits; everything else is ours to explain.
_STATUSES: Final = (
    (ValidationError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (UnavailableError, 503),
    (DeadlineError, 504),
)
_INTERNAL: Final = 500
_REASONS: Final = {
    400: "invalid",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
}

AnyRequest = Request[Any, Any, Any]
Reply = Response[bytes]


def reply(value: object, *, status: int = 200, job_id: str = "") -> Reply:
    """`value` as JSON; with `job_id` in the header that names the job to follow."""
    headers = {JOB_HEADER: job_id} if job_id else {}
    body = msgspec.json.encode(_plain(value)) + b"\n"
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def _plain(value: object) -> object:
    """Records as JSON objects, unknown fields included."""
    if isinstance(value, Record):
        return value.to_fields()
    return [_plain(each) for each in value] if isinstance(value, list) else value


def error_reply(message: str, code: int, reason: str, details: Mapping[str, object] | None = None) -> Reply:
    body = {"message": message, "code": code, "reason": reason}
    more = {name: each for name, each in (details or {}).items() if name not in body and each}
    return reply({**body, **more}, status=code)


def known_error(request: AnyRequest, error: LochnessError) -> Reply:
    """One of our own errors as an answer."""
    code = next((code for kind, code in _STATUSES if isinstance(error, kind)), _INTERNAL)
    if code >= _INTERNAL:
        get_logger("agent").warning(
            events.AGENT_REQUEST_FAILED, path=request.url.path, error=error.message, reason=error.reason
        )
    return error_reply(error.message, code, error.reason, error.details)


def http_error(_: AnyRequest, error: HTTPException) -> Reply:
    """What the framework refused: a route, a method, a body."""
    code = error.status_code
    return error_reply(str(error.detail), code, _REASONS.get(code, "http_error"))


def unexpected_error(request: AnyRequest, error: Exception) -> Reply:
    """The boundary of a request: the log gets the traceback, the client a sentence."""
    get_logger("agent").error(events.AGENT_REQUEST_FAILED, path=request.url.path, error=repr(error), exc_info=error)
    return error_reply("unexpected error, the agent's log has the details", _INTERNAL, "internal_error")
