"""How does a client see an error? `{"message", "code", "reason", ...}`, with the status that its class stands for.

Invariants:
1. Nothing of a traceback, and nothing of an unexpected error but its request id, reaches a client.
2. `reason` is a stable word, `code` the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import HTTPScope, Send

from lochness import events
from lochness.errors import (
    AgentJobError,
    AmbiguousWriteError,
    CompactedError,
    ConflictError,
    DeadlineError,
    HTTPCodeError,
    LochnessError,
    NoCandidateError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    UnavailableError,
    ValidationError,
)
from lochness.log import get_logger
from lochness.model.record import JSONObject
from lochness_controller.api.answers import JSONLine, send_json
from lochness_controller.api.edge import REQUEST_ID_HEADER, request_id_of

_STATUS: Final[tuple[tuple[type[LochnessError], int], ...]] = (
    (ValidationError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (NoCandidateError, 409),
    (UnavailableError, 503),
    (OverloadedError, 429),
    (PreconditionError, 412),
    (CompactedError, 410),
    (AmbiguousWriteError, 504),
    (DeadlineError, 504),
    (HTTPCodeError, 502),
    (AgentJobError, 502),
)
_REASONS: Final[Mapping[int, str]] = {
    400: "invalid",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
    415: "unsupported_media_type",
    503: "unavailable",
}
_INTERNAL: Final = 500

_log = get_logger("api")


def status_of(error: LochnessError) -> int:
    """The HTTP status that stands for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), _INTERNAL)


def reason_of(status: int) -> str:
    """The reason that stands for a status which the web framework gave."""
    return _REASONS.get(status, "invalid")


def problem(message: str, code: int, reason: str, details: Mapping[str, object] | None = None) -> JSONObject:
    """The body of an error. Of `details`, what says something and does not hide one of the three."""
    body: JSONObject = {"message": message, "code": code, "reason": reason}
    for name, value in (details or {}).items():
        if value not in ("", None, [], {}):
            body.setdefault(name, value)
    return body


def problem_of(error: LochnessError) -> JSONObject:
    """The body that stands for an error."""
    return problem(error.message, status_of(error), error.reason, error.details)


def answer_lochness_error(request: Request[Any, Any, Any], error: LochnessError) -> Response[Any]:
    """For every error that Loch Ness raises on purpose."""
    return _line(_of_lochness_error(request.method, request.url.path, request_id_of(request.scope), error))


def answer_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """For what the web framework refuses: no such path or method, a body too large, a malformed query."""
    return _line(_of_http_exception(request.method, request.url.path, request_id_of(request.scope), error))


def answer_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """For a fault of ours. The log has the traceback, under the request id that the body names."""
    return _line(_of_unexpected(request.method, request.url.path, request_id_of(request.scope), error))


async def send_problem(scope: HTTPScope, send: Send, error: Exception) -> None:
    """The answer to any of them, from outside of the framework."""
    where = (scope["method"], scope["path"], request_id_of(scope))
    if isinstance(error, LochnessError):
        answer = _of_lochness_error(*where, error)
    elif isinstance(error, HTTPException):
        answer = _of_http_exception(*where, error)
    else:
        answer = _of_unexpected(*where, error)
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    await send_json(send, answer.status, answer.body, headers)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: JSONObject
    headers: Mapping[str, str]


def _line(answer: _Answer) -> JSONLine:
    return JSONLine(answer.body, status_code=answer.status, headers=answer.headers)


def _of_lochness_error(method: str, path: str, request_id: str, error: LochnessError) -> _Answer:
    status = status_of(error)
    if status >= _INTERNAL:
        _log.warning(
            events.API_REQUEST_FAILED,
            method=method,
            path=path,
            error=error.message,
            reason=error.reason,
            cause=str(error.__cause__ or ""),
            request_id=request_id,
        )
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, OverloadedError) else {}
    return _Answer(status, problem_of(error), headers)


def _of_http_exception(method: str, path: str, request_id: str, error: HTTPException) -> _Answer:
    status = error.status_code
    if status >= _INTERNAL and status not in _REASONS:
        return _of_unexpected(method, path, request_id, error)
    message = {
        404: f"there is nothing at {path}",
        405: f"{method} is not possible at {path}",
        413: "the body is larger than 1 MiB",
    }.get(status, _detail_of(error))
    return _Answer(status, problem(message, status, reason_of(status)), dict(error.headers or {}))


def _of_unexpected(method: str, path: str, request_id: str, error: Exception) -> _Answer:
    _log.error(
        events.API_REQUEST_FAILED, method=method, path=path, error=repr(error), request_id=request_id, exc_info=error
    )
    text = f"internal error; the controller's log has the details under request id {request_id}"
    body = problem(text, _INTERNAL, LochnessError.reason, {"request_id": request_id})
    return _Answer(_INTERNAL, body, {REQUEST_ID_HEADER: request_id})


def _detail_of(error: HTTPException) -> str:
    """The framework's words, with the fields it names: "Validation failed for GET /jobs: limit: Expected `int`"."""
    extra = error.extra if isinstance(error.extra, list) else []
    places = [f"{each.get('key', '')}: {each.get('message', '')}" for each in extra if isinstance(each, dict)]
    return "; ".join([error.detail, *places]) if places else error.detail
