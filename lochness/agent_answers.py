"""What does an agent's answer mean, or that there is none? The same for both of our HTTP clients.

Their errors become ours at the client, by the words given here.

Invariant: a POST whose answer did not come is AmbiguousWriteError, unless it is certain that it was never sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

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
CONSOLE_END_HEADER: Final = "X-Console-End"

#: What an agent's own words are cut to, in characters.
WORDS_MAX: Final = 500

_NOT_FOUND: Final = 404

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What came over HTTP. `job_id` is the header X-Guest-Job-ID, "" without it; `url` is what was asked.

    `console_end` is the header X-Console-End, "" without it.
    """

    status: int
    content: bytes
    job_id: str
    url: str
    console_end: str = ""


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


class GuestConsole(msgspec.Struct, frozen=True):
    """Some of what a guest wrote to its serial console; `end` is the place behind it, in bytes."""

    text: str
    end: int


def console_of(answer: AgentAnswer) -> GuestConsole:
    """The console in an answer. Raises UnavailableError for anything else."""
    end = answer.console_end
    if not (end.isascii() and end.isdigit()):
        raise UnavailableError(f"what listens at {answer.url} is no agent: it tells no {CONSOLE_END_HEADER}")
    return GuestConsole(answer.content.decode(errors="replace"), int(end))


def headers_of(body: object, request_id: str) -> dict[str, str]:
    """The headers of a request with this body (None: without one)."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if request_id:
        headers[REQUEST_ID_HEADER] = request_id
    return headers


def unreached(what: str, why: Exception) -> UnavailableError:
    """Nothing was sent; `what` is the request in words."""
    return UnavailableError(f"the agent was not reached: {what}: {_words(why)}")


def unaddressed(what: str, why: Exception) -> UnavailableError:
    """Where the agent is said to be is no address."""
    return UnavailableError(f"the agent's address is none: {what}: {_words(why)}")


def unanswered(method: str, what: str, why: Exception) -> LochnessError:
    """It was sent, and no answer came."""
    kind = UnavailableError if method == "GET" else AmbiguousWriteError
    return kind(f"the agent did not answer: {what}: {_words(why)}")


def closed(what: str) -> UnavailableError:
    """Our own client was closed before."""
    return UnavailableError(f"the agent client is closed: {what}")


def checked(answer: AgentAnswer, expected: int, what: str) -> AgentAnswer:
    """The answer. Raises HTTPCodeError, with the agent's own words, when its status is another one."""
    if answer.status != expected:
        raise HTTPCodeError(expected, answer.status, message=f"{what}: {_message_of(answer)}")
    return answer


def decoded(answer: AgentAnswer, kind: type[T]) -> T:
    """The answer's JSON. Raises UnavailableError for anything else: no agent listens there."""
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnavailableError(
            f"what listens at {answer.url} is no agent: it answers {answer.content[:80]!r}"
        ) from error


def job_id_of(answer: AgentAnswer, what: str) -> str:
    """The id of the job that the agent has made. Raises AgentJobError when it names none."""
    if not answer.job_id:
        raise AgentJobError(f"the agent accepted {what} without naming a job ({JOB_ID_HEADER})")
    return answer.job_id


def is_gone(error: HTTPCodeError) -> bool:
    """Whether the agent said that it does not know what it was asked about."""
    return error.code == _NOT_FOUND


def _message_of(answer: AgentAnswer) -> str:
    text = answer.content.decode(errors="replace").strip()
    try:
        body: Any = msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text[:WORDS_MAX]
    message = body.get("message") if isinstance(body, dict) else None
    return str(message if message else text)[:WORDS_MAX]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
