"""What can go wrong, sorted by what the caller does next.

Every error of Loch Ness is a `LochnessError`. The class says what to do about it, the text says what failed and with
which values, `__cause__` says why. `reason` is a stable machine-readable word that APIs and jobs carry unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class LochnessError(Exception):
    """The base of every error that Loch Ness raises on purpose."""

    reason: ClassVar[str] = "internal_error"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        #: Values behind the message, by name, for logs and API answers. Plain JSON types only.
        self.details: Mapping[str, object] = details


class ValidationError(LochnessError):
    """The input is wrong; trying again with the same input cannot help.

    `field` names the offending field in its JSON spelling, "" when the input as a whole is wrong.
    """

    reason = "invalid"

    def __init__(self, message: str, *, field: str = "", **details: object) -> None:
        super().__init__(message, field=field, **details)
        self.field = field


class NotFoundError(LochnessError):
    """The object does not exist. `kind` is its field term ("guest"), `id` what was asked for."""

    reason = "not_found"

    def __init__(self, kind: str, id: str, *, field: str = "") -> None:
        super().__init__(f"{kind} {id!r} does not exist", kind=kind, id=id, field=field)
        self.kind = kind
        self.id = id
        self.field = field


class ConflictError(LochnessError):
    """What the decision relied on has changed; nothing was written. Re-read, decide again, bounded.

    `keys` lists the store keys (or, ending in "/", the prefixes) whose expectation failed, as far as known.
    """

    reason = "conflict"

    def __init__(self, message: str, *, keys: Sequence[str] = (), reason: str = "conflict") -> None:
        super().__init__(message, keys=list(keys))
        self.keys = tuple(keys)
        self.reason = reason  # type: ignore[misc]  # a narrower word for this one occurrence


class NoCandidateError(LochnessError):
    """No hypervisor can take the guest. `details["tally"]` says per candidate function how many it removed and why."""

    reason = "no_candidate"


class UnavailableError(LochnessError):
    """The other side was not reached and nothing was changed there. Trying again later is safe."""

    reason = "unavailable"


class OverloadedError(LochnessError):
    """There is too much to do already, and a limit says so; nothing was changed. Try again after `retry_after_s`."""

    reason = "overloaded"

    def __init__(self, message: str, *, reason: str = "overloaded", retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = reason  # type: ignore[misc]  # a narrower word for this one occurrence
        self.retry_after_s = retry_after_s


class PreconditionError(LochnessError):
    """What the caller named as the state it has seen is not the state any more; nothing was changed. Read, decide."""

    reason = "precondition_failed"


class AmbiguousWriteError(LochnessError):
    """A write timed out: it may or may not have happened. Re-read before anything else, never blindly retry."""

    reason = "ambiguous_write"


class CompactedError(LochnessError):
    """The revision asked for is no longer in the store. Read the current state, then go on from its revision."""

    reason = "compacted"

    def __init__(self, message: str, *, compact_revision: int) -> None:
        super().__init__(message, compact_revision=compact_revision)
        self.compact_revision = compact_revision


class LeaseNotFoundError(LochnessError):
    """The lease has expired or was revoked, and with it every key that was attached to it."""

    reason = "lease_not_found"


class HTTPCodeError(LochnessError):
    """An HTTP peer answered with another status than the one that means success."""

    reason = "unexpected_http_code"

    def __init__(self, expected: int, code: int, *, message: str = "") -> None:
        text = f"unexpected HTTP Response Code: Expected {expected}, Received {code}"
        super().__init__(f"{text}: {message}" if message else text, expected=expected, code=code)
        self.expected = expected
        self.code = code


class AgentJobError(LochnessError):
    """A job on a hypervisor's agent ended in an error; the text is the agent's message.

    `agent_reason` is the agent's own stable word, "" from an agent that tells none.
    """

    reason = "agent_job_failed"

    def __init__(self, message: str, *, agent_reason: str = "") -> None:
        super().__init__(message, agent_reason=agent_reason)
        self.agent_reason = agent_reason


class DriverError(LochnessError):
    """libvirt refused or failed a call; the domain is as it was, as far as libvirt tells."""

    reason = "driver_failed"


class DeadlineError(LochnessError):
    """Something that has a limit did not finish within it. The text names the limit with its unit."""

    reason = "deadline_exceeded"


class ConfigurationError(LochnessError):
    """The process cannot start as configured. The text says which value and where it came from."""

    reason = "configuration"
    #: systemd's RestartPreventExitStatus in our units: restarting cannot help (sysexits.h EX_CONFIG).
    EXIT_CODE: ClassVar[int] = 78
