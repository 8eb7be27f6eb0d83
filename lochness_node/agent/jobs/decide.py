"""Which jobs begin, which requests join a job that is already under way, which jobs are forgotten? Pure.

1. At most one job of a line (a guest, or an image) runs; a line's jobs run in the order in which they were queued.
2. At most `running_max` jobs run.
3. A request is answered by an unfinished job exactly when doing it again after that job would change nothing:
   the line's last unfinished job does the same; or it is a create and no delete follows the one under way.
4. Only finished jobs are forgotten, the oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from lochness_node.agent.wire import CREATE, DELETE, AgentJob

INTERRUPTED: Final = "interrupted"


def jobs_to_begin(unfinished: Sequence[AgentJob], running_max: int) -> tuple[AgentJob, ...]:
    """The queued jobs that begin now. `unfinished` are all queued and running ones in the order of their queueing."""
    busy = {job.line for job in unfinished if job.status == "Running"}
    places = running_max - len(busy)
    chosen: list[AgentJob] = []
    for job in unfinished:
        if len(chosen) >= places:
            break
        if job.line not in busy:
            busy.add(job.line)
            chosen.append(job)
    return tuple(chosen)


def job_to_join(unfinished: Sequence[AgentJob], line: str, action: str) -> AgentJob | None:
    """The job that answers a new request for `action` on `line`, None when it needs one of its own."""
    for job in reversed(unfinished):
        if job.line != line:
            continue
        if job.action == action:
            return job
        if action != CREATE or job.action == DELETE:
            return None
    return None


def jobs_to_forget(jobs: Sequence[AgentJob], kept_max: int) -> tuple[AgentJob, ...]:
    """What exceeds `kept_max` finished jobs. `jobs` stand in the order of their queueing."""
    finished = [job for job in jobs if job.is_finished]
    return tuple(finished[: max(0, len(finished) - kept_max)])


def interrupted(job: AgentJob, now: str) -> AgentJob:
    """What becomes of a job that an ended agent left unfinished: how far it came is not known, ask again."""
    return msgspec.structs.replace(
        job,
        status="Error",
        updated_at=now,
        message="interrupted by a restart of the agent",
        reason=INTERRUPTED,
        progress="",
    )
