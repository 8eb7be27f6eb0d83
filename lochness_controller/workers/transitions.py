"""What does a job say after what happened to it? Pure: the job before and an event give the job after.

    new -> working (claimed) -> ... one step after the other ... -> done | error

Invariants:
1. A finished job never changes again.
2. `steps` tells every step that began, in order, with how it went.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from lochness.model.job import UNSET_TIME, JobRecord, rfc3339


def claimed(job: JobRecord, worker: str, now: datetime) -> JobRecord:
    """`worker` works on it from now on; its step goes on where it was."""
    changes: dict[str, Any] = {"worker": worker, "status": "working"}
    if job.started_at == UNSET_TIME:
        changes["started_at"] = rfc3339(now)
    if not job.steps:
        changes["steps"] = [_step(job.action, now)]
    return job.patched(changes)


def accepted(job: JobRecord, remote: str) -> JobRecord:
    """The agent took the current step as its job `remote`."""
    return job.patched({"remote": remote})


def moved_on(job: JobRecord, action: str, now: datetime, *, message: str = "") -> JobRecord:
    """The current step is done (`message` says how); `action` is the next one."""
    steps = [*_told(job, message), _step(action, now)]
    return job.patched({"action": action, "remote": "", "steps": steps})


def placed(
    job: JobRecord, hypervisor: str, action: str, worker: str, now: datetime, explanation: Mapping[str, Any]
) -> JobRecord:
    """Its guest got a place on `hypervisor`; `worker` goes on with `action`."""
    begun = claimed(job, worker, now).patched({"hypervisor": hypervisor, "explanation": dict(explanation)})
    return moved_on(begun, action, now, message=f"placed on hypervisor {hypervisor}")


def done(job: JobRecord, now: datetime, *, message: str = "") -> JobRecord:
    """All of it is done."""
    return job.patched({"status": "done", "finished_at": rfc3339(now), "steps": _told(job, message)})


def failed(
    job: JobRecord, error: str, reason: str, now: datetime, *, explanation: Mapping[str, Any] | None = None
) -> JobRecord:
    """The current step failed, and with it the job. `error` is one line with its numbers, `reason` its stable word."""
    changes: dict[str, Any] = {
        "status": "error",
        "error": " ".join(error.split()),
        "reason": reason,
        "finished_at": rfc3339(now),
        "steps": _told(job, "failed"),
    }
    if job.started_at == UNSET_TIME:
        changes["started_at"] = rfc3339(now)
    if explanation is not None:
        changes["explanation"] = dict(explanation)
    return job.patched(changes)


def _step(action: str, now: datetime) -> dict[str, Any]:
    return {"action": action, "started_at": rfc3339(now), "message": ""}


def _told(job: JobRecord, message: str) -> list[dict[str, Any]]:
    """The steps so far, the last one with `message`."""
    steps = [msgspec.to_builtins(step) for step in job.steps]
    if steps and message:
        steps[-1] = msgspec.to_builtins(msgspec.structs.replace(job.steps[-1], message=message))
    return steps
