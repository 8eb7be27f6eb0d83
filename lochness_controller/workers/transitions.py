"""What does a job say after what happened to it? Pure: the job before and an event give the job after.

    new -> working (claimed) -> ... one step after the other ... -> done | error
                                a create that failed -> undoing -> error

Invariants:
1. A finished job never changes again.
2. What a failed create has claimed is given back before it ends: it is unfinished with an `error` meanwhile.
3. `steps` tells every step that began, in order, with how it went.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from lochness.model.job import UNSET_TIME, JobRecord, rfc3339

#: The last step of a create that failed.
UNDO: Final = "undo"


def claimed(job: JobRecord, worker: str, now: datetime) -> JobRecord:
    """`worker` works on it from now on; its step goes on where it was."""
    return job.patched(_claim(job, worker, now))


def _claim(job: JobRecord, worker: str, now: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {"worker": worker, "status": "working"}
    if job.worker not in ("", worker):
        changes["take_ups"] = job.take_ups + 1
    if job.started_at == UNSET_TIME:
        changes["started_at"] = rfc3339(now)
    if not job.steps:
        changes["steps"] = [_step(job.action, now)]
    return changes


def accepted(job: JobRecord, remote: str) -> JobRecord:
    """The agent took the current step as its job `remote`."""
    return job.patched({"remote": remote})


def moved_on(job: JobRecord, action: str, now: datetime, *, message: str = "") -> JobRecord:
    """The current step is done (`message` says how); `action` is the next one."""
    steps = [*_told(job, message), _step(action, now)]
    return job.patched({"action": action, "remote": "", "take_ups": 0, "steps": steps})


def placed(
    job: JobRecord, hypervisor: str, action: str, worker: str, now: datetime, explanation: Mapping[str, Any]
) -> JobRecord:
    """Its guest got a place on `hypervisor`; `worker` goes on with `action`."""
    claim = _claim(job, worker, now)
    steps: list[dict[str, Any]] = claim.get("steps") or _told(job, "")
    steps[-1]["message"] = f"placed on hypervisor {hypervisor}"
    place = {"hypervisor": hypervisor, "explanation": dict(explanation)}
    step = {"action": action, "remote": "", "take_ups": 0, "steps": [*steps, _step(action, now)]}
    return job.patched({**claim, **place, **step})


def undoing(job: JobRecord, error: str, reason: str, now: datetime) -> JobRecord:
    """The current step failed for this reason; what the job has claimed and made is to be given back before it ends."""
    steps = [*_told(job, "failed"), _step(UNDO, now)]
    changes = {"error": _one_line(error), "reason": reason, "remote": "", "take_ups": 0, "steps": steps}
    return job.patched(changes)


def undone(job: JobRecord, what: str, now: datetime, *, is_left: bool = False) -> JobRecord:
    """The job ends with the error it has; `what` tells of the undoing. `is_left`: not all was undone, and so it is said
    in the error too."""
    error = _one_line(f"{job.error}; {what}") if is_left else job.error
    return job.patched({"status": "error", "error": error, "finished_at": rfc3339(now), "steps": _told(job, what)})


def done(job: JobRecord, now: datetime, *, message: str = "") -> JobRecord:
    """All of it is done."""
    return job.patched({"status": "done", "finished_at": rfc3339(now), "steps": _told(job, message)})


def failed(
    job: JobRecord, error: str, reason: str, now: datetime, *, explanation: Mapping[str, Any] | None = None
) -> JobRecord:
    """The current step failed, and with it the job. `error` is one line with its numbers, `reason` its stable word."""
    changes: dict[str, Any] = {
        "status": "error",
        "error": _one_line(error),
        "reason": reason,
        "finished_at": rfc3339(now),
        "steps": _told(job, "failed"),
    }
    if job.started_at == UNSET_TIME:
        changes["started_at"] = rfc3339(now)
    if explanation is not None:
        changes["explanation"] = dict(explanation)
    return job.patched(changes)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _step(action: str, now: datetime) -> dict[str, Any]:
    return {"action": action, "started_at": rfc3339(now), "message": ""}


def _told(job: JobRecord, message: str) -> list[dict[str, Any]]:
    """The steps so far, the last one with `message`."""
    steps = [msgspec.to_builtins(step) for step in job.steps]
    if steps and message:
        steps[-1] = msgspec.to_builtins(msgspec.structs.replace(job.steps[-1], message=message))
    return steps
