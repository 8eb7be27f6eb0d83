"""A job: one asynchronous operation on a guest, with its result."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from lochness.model.record import Record, normalized_id, require, require_id

JobStatus = Literal["new", "working", "done", "error"]

#: Steps of a create in order; then the actions on a guest that exists.
SELECT_HYPERVISOR: Final = "select-hypervisor"
FETCH: Final = "fetch"
CREATE: Final = "create"
DELETE: Final = "delete"
GUEST_ACTIONS: Final = ("shutdown", "reboot", "restart", "poweroff", "start", "suspend", "resume")
JOB_ACTIONS: Final = (SELECT_HYPERVISOR, FETCH, CREATE, DELETE, *GUEST_ACTIONS)

#: What existing clients know as "not set".
UNSET_TIME: Final = "0001-01-01T00:00:00Z"


@lru_cache(maxsize=64)  # one moment is written into many records
def rfc3339(moment: datetime) -> str:
    """`moment` (UTC) as RFC 3339 with microseconds and a Z."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


class JobStep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One finished or running step: when it began (RFC 3339) and, where there is something to say, how it went."""

    action: str
    started_at: str
    message: str = ""


class JobRecord(Record, omit_defaults=False, forbid_unknown_fields=True):
    """jobs/ID.

    `remote` is the id of the agent's job that carries out the current step ("": none yet), `action` the current step,
    `error` the reason of a failure in one line with its numbers. Times are RFC 3339.
    The fields after `finished_at` are beyond what existing clients know: `request` is what was asked for ("create",
    "delete" or an action), `explanation` the placement's tally, `request_id` the HTTP request's, `worker` the id of the
    controller that works on it (controllers/ID; "": none yet). `cancel_requested_at` is set by `lochness.jobs`, the one
    field that others than the worker write. `force`: a delete that releases also what no agent confirms.
    `progress` is what the current step waits for when that takes longer than one would expect, "" mostly.
    `take_ups` counts the controllers that have taken its current step up after another one's end.
    An unfinished job with an `error` has failed already and is being undone.
    """

    id: str = ""
    remote: str = ""
    action: str = ""
    guest: str = ""
    error: str = ""
    status: JobStatus = "new"
    started_at: str = UNSET_TIME
    finished_at: str = UNSET_TIME
    created_at: str = UNSET_TIME
    request: str = ""
    hypervisor: str = ""
    progress: str = ""
    reason: str = ""
    request_id: str = ""
    worker: str = ""
    steps: list[JobStep] = []
    explanation: dict[str, Any] = {}
    cancel_requested_at: str = UNSET_TIME
    force: bool = False
    take_ups: int = 0

    @property
    def is_cancel_requested(self) -> bool:
        return self.cancel_requested_at != UNSET_TIME

    @property
    def is_finished(self) -> bool:
        return self.status in ("done", "error")

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")
        self.guest = normalized_id(self.guest, "guest")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        require_id(self.guest, "guest")
        require(
            self.action in JOB_ACTIONS, f"action must be one of {', '.join(JOB_ACTIONS)}, got {self.action!r}", "action"
        )

    def to_fields(self) -> dict[str, Any]:
        """As existing clients expect it: `error` is left out when empty."""
        fields = super().to_fields()
        if not self.error:
            del fields["error"]
        return fields

    def to_json(self) -> bytes:
        if self.unknown_fields:
            return msgspec.json.encode(self.to_fields())
        encoded = msgspec.json.encode(self)
        # The first is the field itself: before it stand strings alone, and inside a string the quotes are escaped.
        return encoded if self.error else encoded.replace(b'"error":"",', b"", 1)
