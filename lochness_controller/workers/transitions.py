"""What does a job say after what happened to it? Pure: the job before and an event give the job after.

    new -> working (claimed) -> ... one step after the other ... -> done | error
                                a create that failed -> undoing -> error

Invariants:
1. A finished job never changes again.
2. What a failed create has claimed is given back before it ends: it is unfinished with an `error` meanwhile.
3. `steps` tells every step that began, in order, with how it went.
4. `progress` is about the current step alone: it is empty when that has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from lochness.model.job import UNSET_TIME, JobRecord, JobStep, rfc3339

#: The last step of a create that failed.
UNDO: Final = "undo"


def claimed(job: JobRecord, worker: str, now: datetime) -> JobRecord:
    """`worker` works on it from now on; its step goes on where it was."""
    return job.with_fields(**_claim(job, worker, now))


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
    return job.with_fields(remote=remote)


def waiting(job: JobRecord, why: str) -> JobRecord:
    """The current step goes on for longer than one would expect, because of `why`; "": no more."""
    return job.with_fields(progress=_one_line(why))


def moved_on(job: JobRecord, action: str, now: datetime, *, message: str = "") -> JobRecord:
    """The current step is done (`message` says how); `action` is the next one."""
    steps = [*_told(job.steps, message), _step(action, now)]
    return job.with_fields(action=action, remote="", progress="", take_ups=0, steps=steps)


def placed(
    job: JobRecord, hypervisor: str, action: str, worker: str, now: datetime, explanation: Mapping[str, Any]
) -> JobRecord:
    """Its guest got a place on `hypervisor`; `worker` goes on with `action`."""
    claim = _claim(job, worker, now)
    steps = [*_told(claim.get("steps", job.steps), f"placed on hypervisor {hypervisor}"), _step(action, now)]
    place = {"hypervisor": hypervisor, "explanation": dict(explanation), "remote": "", "progress": "", "take_ups": 0}
    return job.with_fields(**{**claim, **place, "action": action, "steps": steps})


def undoing(job: JobRecord, error: str, reason: str, now: datetime) -> JobRecord:
    """The current step failed for this reason; what the job has claimed and made is to be given back before it ends."""
    steps = [*_told(job.steps, "failed"), _step(UNDO, now)]
    return job.with_fields(error=_one_line(error), reason=reason, remote="", progress="", take_ups=0, steps=steps)


def undone(job: JobRecord, what: str, now: datetime, *, is_left: bool = False) -> JobRecord:
    """The job ends with the error it has; `what` tells of the undoing. `is_left`: not all was undone, and so it is said
    in the error too."""
    error = _one_line(f"{job.error}; {what}") if is_left else job.error
    return job.with_fields(
        status="error", error=error, progress="", finished_at=rfc3339(now), steps=_told(job.steps, what)
    )


def done(job: JobRecord, now: datetime, *, message: str = "") -> JobRecord:
    """All of it is done."""
    return job.with_fields(status="done", progress="", finished_at=rfc3339(now), steps=_told(job.steps, message))


def failed(
    job: JobRecord, error: str, reason: str, now: datetime, *, explanation: Mapping[str, Any] | None = None
) -> JobRecord:
    """The current step failed, and with it the job. `error` is one line with its numbers, `reason` its stable word."""
    changes: dict[str, Any] = {
        "status": "error",
        "error": _one_line(error),
        "reason": reason,
        "progress": "",
        "finished_at": rfc3339(now),
        "steps": _told(job.steps, "failed"),
    }
    if job.started_at == UNSET_TIME:
        changes["started_at"] = rfc3339(now)
    if explanation is not None:
        changes["explanation"] = dict(explanation)
    return job.with_fields(**changes)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _step(action: str, now: datetime) -> JobStep:
    return JobStep(action=action, started_at=rfc3339(now))


def _told(steps: Sequence[JobStep], message: str) -> list[JobStep]:
    """The steps so far, the last one with `message`."""
    told = list(steps)
    if told and message:
        told[-1] = msgspec.structs.replace(told[-1], message=message)
    return told
