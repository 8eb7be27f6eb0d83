"""Which jobs begin, which requests join a job, which jobs are resumed by the next agent, which are forgotten? Pure.

1. At most one job of a line (a guest, or an image) runs; a line's jobs run in the order in which they were queued.
2. At most `running_max` jobs run.
3. A request is answered by a job that is there exactly when doing it again after that job would change nothing: the
   line's last job is unfinished and was asked for the same; or it is the same create, and no delete follows it; or it
   is the same request come again (by its id), and did not fail.
4. A job that an agent left unfinished is done anew by the next, unless doing it twice differs from doing it once, it is
   old, or it was in the middle of it too often (it may be what ended the agent).
5. Only finished jobs are forgotten, the oldest first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from lochness_node.agent.wire import CREATE, CREATE_SNAPSHOT, DELETE, DELETE_SNAPSHOT, ROLLBACK_SNAPSHOT, AgentJob

INTERRUPTED: Final = "interrupted"
ATTEMPTS_MAX: Final = 5
#: Doing these twice is not doing them once: a second boot, a name that is taken or gone, a guest that is not started.
NOT_REPEATED: Final = frozenset({"reboot", "restart", CREATE_SNAPSHOT, DELETE_SNAPSHOT, ROLLBACK_SNAPSHOT})


@dataclass(frozen=True, slots=True)
class Entry:
    """A job with what the agent needs to do it: `request` is the JSON asked for ("": the action says it all).

    `number` grows with each job.
    """

    job: AgentJob
    number: int
    request: str = ""


def jobs_to_begin(unfinished: Sequence[AgentJob], running_max: int, held: Collection[str] = ()) -> tuple[AgentJob, ...]:
    """The queued jobs that begin now. `unfinished` are all queued and running ones in the order of their queueing.

    The jobs whose ids are `held` do not begin yet, and nothing behind them in their lines.
    """
    running = [job for job in unfinished if job.status == "Running"]
    busy = {job.line for job in running}
    places = running_max - len(running)
    chosen: list[AgentJob] = []
    for job in unfinished:
        if len(chosen) >= places:
            break
        if job.line not in busy:
            busy.add(job.line)
            if job.id not in held:
                chosen.append(job)
    return tuple(chosen)


def job_to_join(entries: Sequence[Entry], asked: Entry) -> AgentJob | None:
    """The job that answers `asked`, None when it needs to be done itself. `entries` stand in their order."""
    is_last = True
    for entry in reversed(entries):
        job = entry.job
        if job.line != asked.job.line:
            continue
        is_same = job.action == asked.job.action
        if job.is_finished:
            is_repeated = is_same and bool(job.request_id) and job.request_id == asked.job.request_id
            return job if is_last and is_repeated and job.status == "Complete" else None
        if is_same and entry.request == asked.request:
            return job
        if asked.job.action != CREATE or job.action == DELETE:
            return None
        is_last = False
    return None


def jobs_to_forget(jobs: Sequence[AgentJob], kept_max: int) -> tuple[AgentJob, ...]:
    """What exceeds `kept_max` finished jobs. `jobs` stand in the order of their queueing."""
    finished = [job for job in jobs if job.is_finished]
    return tuple(finished[: max(0, len(finished) - kept_max)])


def is_resumed(job: AgentJob, now: datetime, age_max_s: float) -> bool:
    """Whether a job that an ended agent left unfinished is done anew (rule 4)."""
    was_begun = job.status == "Running"
    if was_begun and (job.verb in NOT_REPEATED or job.attempts >= ATTEMPTS_MAX):
        return False
    age = now - datetime.fromisoformat(job.queued_at)
    return timedelta(0) <= age <= timedelta(seconds=age_max_s)


def requeued(job: AgentJob, now: str) -> AgentJob:
    """A job that is done anew."""
    text = "resumed after a restart of the agent"
    return msgspec.structs.replace(job, status="Queued", updated_at=now, progress=text)


def interrupted(job: AgentJob, now: str) -> AgentJob:
    """A job that is not: how far it came is not known, ask again."""
    message = "interrupted by a restart of the agent"
    if job.attempts >= ATTEMPTS_MAX:
        message = f"{message}, begun {job.attempts} times"
    return msgspec.structs.replace(
        job, status="Error", updated_at=now, message=message, reason=INTERRUPTED, progress=""
    )
