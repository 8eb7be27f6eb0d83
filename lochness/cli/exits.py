"""Which exit status does a failure get, and which one line tells it? Pure.

    0  done
    1  failed: a job ended in an error, the server could not do it, a change may or may not have happened, or a check
     found something broken
    2  usage: the command line is wrong, a name is ambiguous, or the server refused a value as invalid
    3  not allowed: the controller wants a token, refuses the one it got, or does not allow that with it
    4  not found: something that was named does not exist
    5  conflict: it exists already, changed meanwhile, or is still in use
    6  unreachable: the server does not answer, is too busy, or what answers is no Loch Ness controller, or too old
    7  limit: it has not finished within --timeout; it goes on
   70  a bug of Loch Ness; LOCHNESS_DEBUG=1 shows the traceback
  130  interrupted by Ctrl-C; what the server had accepted goes on

A command on several objects goes on after a failure and ends with the status of the first one.
"""

from __future__ import annotations

from typing import Final

from lochness.errors import (
    AmbiguousWriteError,
    ConfigurationError,
    ConflictError,
    DeadlineError,
    HTTPCodeError,
    LochnessError,
    NotFoundError,
    UnavailableError,
    ValidationError,
)

FAILED: Final = 1
USAGE: Final = 2
NOT_ALLOWED: Final = 3
NOT_FOUND: Final = 4
CONFLICT: Final = 5
UNREACHABLE: Final = 6
LIMIT: Final = 7
BUG: Final = 70
INTERRUPTED: Final = 130

EXIT_STATUS_HELP: Final = (
    "Exit status: 0 done, 1 failed, 2 wrong command line or refused value, 3 not allowed, 4 not found, "
    "5 conflict, 6 server unreachable, not a controller or too old, 7 not finished within --timeout, 130 interrupted."
)

_BY_HTTP_CODE: Final = {
    400: USAGE,
    401: NOT_ALLOWED,
    403: NOT_ALLOWED,
    404: NOT_FOUND,
    409: CONFLICT,
    412: CONFLICT,
    413: USAGE,
    422: USAGE,
    428: CONFLICT,
    429: UNREACHABLE,
    503: UNREACHABLE,
}
_BY_CLASS: Final[tuple[tuple[type[LochnessError], int], ...]] = (
    (ValidationError, USAGE),
    (ConfigurationError, USAGE),
    (NotFoundError, NOT_FOUND),
    (ConflictError, CONFLICT),
    (UnavailableError, UNREACHABLE),
    (DeadlineError, LIMIT),
    (AmbiguousWriteError, FAILED),
)


class JobFailedError(LochnessError):
    """A job that was followed ended in an error; the text is the job's."""

    reason = "job_failed"


def exit_status(error: LochnessError) -> int:
    """The exit status for what ended a command."""
    if error.reason in ("unexpected_answer", "unknown_call"):
        return UNREACHABLE
    if isinstance(error, HTTPCodeError):
        return _BY_HTTP_CODE.get(error.code, FAILED)
    return next((status for kind, status in _BY_CLASS if isinstance(error, kind)), FAILED)


def error_line(error: LochnessError) -> str:
    """One line without control characters, whatever the other side put into its message."""
    return one_line(error.message)


def one_line(text: str) -> str:
    """`text` on one line, its control characters (a terminal would obey them) as spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
