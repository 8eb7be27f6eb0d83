"""Who runs the jobs, and who is told when one ends?

1. What `decide` says, and nothing else, runs; each running job has a thread of its own.
2. A job that `submit` answered is in the journal; its end is there before anybody is told of it.
3. After `load` no job of an earlier agent is unfinished.
4. The threads are daemons: a job never holds up the end of the process; the next agent then says "interrupted".

Not guaranteed: that a job's end reaches a full disk; it is still known until the agent ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import structlog

from lochness import events
from lochness.clock import Clock
from lochness.errors import LochnessError, NotFoundError, UnavailableError
from lochness.identity import new_id
from lochness.log import Logger
from lochness.model.job import rfc3339
from lochness_node.agent.jobs.decide import interrupted, job_to_join, jobs_to_begin, jobs_to_forget
from lochness_node.agent.jobs.journal import JobJournal
from lochness_node.agent.wire import AGENT, FETCH_IMAGE, AgentJob, JobStatus

#: Tells how far a job is, in a few words for people.
Progress = Callable[[str], None]
#: Does a job's work and answers its closing message. Raises what went wrong.
Work = Callable[[Progress], str]


class JobRegistry:
    """All jobs of this agent. Safe to share between threads.

    `running_max` run at a time, `queued_max` may wait, `kept_max` finished ones are remembered.
    """

    def __init__(
        self, journal: JobJournal, clock: Clock, log: Logger, *, running_max: int, queued_max: int, kept_max: int
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._log = log
        self._running_max = running_max
        self._queued_max = queued_max
        self._kept_max = kept_max
        #: Held while a job is taken, the disk included; the lock below is never held while the disk is waited for.
        self._taking = threading.Lock()
        self._lock = threading.Lock()
        self._is_closed = False
        #: In the order of their queueing.
        self._jobs: dict[str, AgentJob] = {}
        self._work: dict[str, Work] = {}
        self._waiters: dict[str, list[Callable[[], None]]] = {}

    def load(self) -> None:
        """Take over the journal of the agent before. Raises UnavailableError when it cannot be written."""
        jobs, damaged = self._journal.load()
        for path in damaged:
            self._log.warning(events.AGENT_JOB_UNREADABLE, path=str(path))
        now = rfc3339(self._clock.now())
        with self._lock:
            for job in jobs:
                self._jobs[job.id] = job
                if not job.is_finished:
                    self._jobs[job.id] = ended = interrupted(job, now)
                    self._journal.write(ended)
                    self._log.warning(events.AGENT_JOB_INTERRUPTED, **_fields(ended))
            self._forget()

    def submit(
        self, work: Work, *, action: str, guest_id: str = AGENT, image_id: str = "", request_id: str = ""
    ) -> AgentJob:
        """A job that does `work`, or the unfinished one that does the same already (decide, 3).

        Raises UnavailableError when too many wait, the agent is ending, or the journal cannot be written.
        """
        job = AgentJob(
            id=new_id(),
            guest_id=guest_id,
            action=action,
            image_id=image_id,
            queued_at=rfc3339(self._clock.now()),
            request_id=request_id,
        )
        with self._taking:
            with self._lock:
                unfinished = self._unfinished()
                if joined := job_to_join(unfinished, job.line, action):
                    return joined
                if self._is_closed:
                    raise UnavailableError("the agent is ending")
            if len(unfinished) >= self._queued_max + self._running_max:
                raise UnavailableError(f"{len(unfinished)} jobs wait or run, no more are taken", jobs=len(unfinished))
            self._journal.write(job)
            self._log.info(events.AGENT_JOB_QUEUED, **_fields(job))
            with self._lock:
                self._jobs[job.id] = job
                self._work[job.id] = work
                self._begin()
                self._forget()
                return self._jobs[job.id]

    def get(self, id: str) -> AgentJob:
        """Raises NotFoundError."""
        with self._lock:
            if (job := self._jobs.get(id)) is None:
                raise NotFoundError("job", id)
            return job

    def newest(self, *, guest_id: str | None = None, limit: int) -> list[AgentJob]:
        """At most `limit` jobs, of one guest or of all, newest first."""
        with self._lock:
            jobs = [job for job in reversed(self._jobs.values()) if guest_id in (None, job.guest_id)]
        return jobs[:limit]

    def has_unfinished(self, guest_id: str) -> bool:
        with self._lock:
            return any(job.guest_id == guest_id for job in self._unfinished())

    def call_when_finished(self, id: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once, on some thread, when the job has ended or the registry was closed; at once if it is so.

        The answer cancels it. Raises NotFoundError.
        """
        with self._lock:
            if (job := self._jobs.get(id)) is None:
                raise NotFoundError("job", id)
            is_over = job.is_finished or self._is_closed
            if not is_over:
                self._waiters.setdefault(id, []).append(callback)
        if is_over:
            callback()
        return lambda: self._cancel(id, callback)

    def close(self) -> None:
        """Begin no more jobs and let go of everybody who waits. Running ones are left to themselves."""
        with self._lock:
            self._is_closed = True
            waiting = [callback for callbacks in self._waiters.values() for callback in callbacks]
            self._waiters.clear()
        for callback in waiting:
            callback()

    def _cancel(self, id: str, callback: Callable[[], None]) -> None:
        with self._lock:
            callbacks = self._waiters.get(id, [])
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks:
                self._waiters.pop(id, None)

    def _unfinished(self) -> list[AgentJob]:
        return [self._jobs[id] for id in self._jobs if not self._jobs[id].is_finished]

    def _begin(self) -> None:
        """Under the lock: start what may start."""
        if self._is_closed:
            return
        for job in jobs_to_begin(self._unfinished(), self._running_max):
            now = rfc3339(self._clock.now())
            thread = threading.Thread(target=self._run, args=(job.id,), name=f"job-{job.id[:8]}", daemon=True)
            try:
                thread.start()  # it waits for the lock that we hold
            except RuntimeError as error:  # the system has no thread left; the next end or request tries again
                self._log.warning(events.AGENT_JOB_DELAYED, error=str(error), **_fields(job))
                return
            self._jobs[job.id] = msgspec.structs.replace(job, status="Running", started_at=now, updated_at=now)

    def _forget(self) -> None:
        """Under the lock: drop what is no longer kept."""
        forgotten = jobs_to_forget(list(self._jobs.values()), self._kept_max)
        for job in forgotten:
            del self._jobs[job.id]
        self._journal.forget(forgotten)

    def _run(self, id: str) -> None:
        with self._lock:
            work, job = self._work.pop(id), self._jobs[id]
        structlog.contextvars.bind_contextvars(**_fields(job))  # also for what the work logs
        try:
            message = work(lambda text: self._tell(id, text))
        except LochnessError as error:
            self._end(id, status="Error", message=error.message, reason=error.reason)
        except Exception as error:  # the boundary of a job: whatever it is, the job has an end and the log the cause
            self._log.exception(events.AGENT_JOB_BROKE, **_fields(self.get(id)))
            text = f"unexpected {type(error).__name__}, the agent's log has the details (job {id})"
            self._end(id, status="Error", message=text, reason="internal_error")
        else:
            self._end(id, status="Complete", message=message)

    def _tell(self, id: str, progress: str) -> None:
        with self._lock:
            now = rfc3339(self._clock.now())
            self._jobs[id] = msgspec.structs.replace(self._jobs[id], updated_at=now, progress=progress)

    def _end(self, id: str, *, status: JobStatus, message: str, reason: str = "") -> None:
        now = rfc3339(self._clock.now())
        ended = msgspec.structs.replace(
            self.get(id), status=status, updated_at=now, message=message, reason=reason, progress=""
        )
        try:
            self._journal.write(ended)
        except UnavailableError as error:
            self._log.error(events.AGENT_JOURNAL_FAILED, error=error.message, **_fields(ended))
        if status == "Complete":
            self._log.info(events.AGENT_JOB_FINISHED, message=message, **_fields(ended))
        else:
            self._log.warning(events.AGENT_JOB_FAILED, error=message, reason=reason, **_fields(ended))
        with self._lock:
            self._jobs[id] = ended
            waiting = self._waiters.pop(id, [])
            self._begin()
            self._forget()
        for callback in waiting:
            callback()


def _fields(job: AgentJob) -> dict[str, str]:
    """A job as fields of a log entry."""
    fields = {"job_id": job.id, "guest_id": job.guest_id, "action": job.action, "request_id": job.request_id}
    return {**fields, "image_id": job.image_id} if job.action == FETCH_IMAGE else fields
