"""What does an agent's answer mean, or that there is none? Third-party errors become ours here.

Invariant: a POST whose answer did not come is AmbiguousWriteError, unless it is certain that it was never sent.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import httpx
import msgspec

from lochness.errors import (
    AgentJobError,
    AmbiguousWriteError,
    HTTPCodeError,
    LochnessError,
    UnavailableError,
)

JOB_ID_HEADER: Final = "X-Guest-Job-ID"
REQUEST_ID_HEADER: Final = "X-Request-ID"

#: What an agent's own words are cut to, in characters.
WORDS_MAX: Final = 500

_NOT_FOUND: Final = 404

T = TypeVar("T")


class AgentJob(msgspec.Struct, frozen=True):
    """A job as the agent tells it; Status is Queued, Running, Complete or Error.

    What stands behind Message is not every agent's.
    """

    ID: str = ""
    GuestID: str = ""
    Action: str = ""
    Status: str = ""
    Message: str = ""
    Progress: str = ""
    Reason: str = ""
    RequestID: str = ""

    def has_ended(self, job_id: str) -> bool:
        """Whether it is complete. Raises AgentJobError, with the agent's message, when it failed."""
        if self.Status == "Error":
            message = self.Message or f"the agent's job {job_id} failed without a message"
            raise AgentJobError(message, agent_reason=self.Reason)
        return self.Status == "Complete"


def headers_of(body: object, request_id: str) -> dict[str, str]:
    """The headers of a request with this body (None: without one)."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if request_id:
        headers[REQUEST_ID_HEADER] = request_id
    return headers


def unanswered(error: Exception, method: str, what: str) -> LochnessError:
    """Our error for what an HTTP client raised instead of an answer; `what` is the request in words."""
    words = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return UnavailableError(f"the agent was not reached: {what}: {words}")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return UnavailableError(f"the agent's address is none: {what}: {words}")
    if isinstance(error, httpx.HTTPError):
        kind = UnavailableError if method == "GET" else AmbiguousWriteError
        return kind(f"the agent did not answer: {what}: {words}")
    return UnavailableError(f"the agent client is closed: {what}")  # a RuntimeError: httpx's word for it


def checked(answer: httpx.Response, expected: int, what: str) -> httpx.Response:
    """The answer. Raises HTTPCodeError, with the agent's own words, when its status is another one."""
    if answer.status_code != expected:
        raise HTTPCodeError(expected, answer.status_code, message=f"{what}: {_message_of(answer)}")
    return answer


def decoded(answer: httpx.Response, kind: type[T]) -> T:
    """The answer's JSON. Raises UnavailableError for anything else: no agent listens there."""
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnavailableError(
            f"what listens at {answer.request.url} is no agent: it answers {answer.content[:80]!r}"
        ) from error


def job_id_of(answer: httpx.Response, what: str) -> str:
    """The id of the job that the agent has made. Raises AgentJobError when it names none."""
    job_id: str = answer.headers.get(JOB_ID_HEADER, "")
    if not job_id:
        raise AgentJobError(f"the agent accepted {what} without naming a job ({JOB_ID_HEADER})")
    return job_id


def is_gone(error: HTTPCodeError) -> bool:
    """Whether the agent said that it does not know what it was asked about."""
    return error.code == _NOT_FOUND


def _message_of(answer: httpx.Response) -> str:
    try:
        body: Any = msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return answer.text.strip()[:WORDS_MAX]
    message = body.get("message") if isinstance(body, dict) else None
    return str(message if message else answer.text.strip())[:WORDS_MAX]
