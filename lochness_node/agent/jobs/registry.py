"""Who runs the jobs, and who is told when one ends?

1. What `decide` says, and nothing else, runs; each running job has a thread of its own.
2. A job that `submit` answered is in the journal; its end is there before anybody is told of it.
3. After `load` every job of an earlier agent is finished or will be done anew, as `decide.is_resumed` says. Those to be
   done anew wait for `release`: what they need may not be there yet when the agent starts.
4. The threads are daemons: a job never holds up the end of the process; the next agent takes it over.

Not guaranteed: that a job's end reaches a full disk; it is still known until the agent ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import msgspec
import structlog

from lochness import events
from lochness.clock import Clock
from lochness.errors import LochnessError, NotFoundError, UnavailableError
from lochness.identity import new_id
from lochness.log import Logger
from lochness.model.job import rfc3339
from lochness_node.agent.jobs.decide import (
    Entry,
    interrupted,
    is_resumed,
    job_to_join,
    jobs_to_begin,
    jobs_to_forget,
    requeued,
)
from lochness_node.agent.jobs.journal import JobJournal
from lochness_node.agent.wire import AGENT, FETCH_IMAGE, AgentJob, JobStatus

#: Tells how far a job is, in a few words for people.
Progress = Callable[[str], None]
#: Does a job's work, with the JSON it was asked for, and answers its closing message. Raises what went wrong.
Worker = Callable[[AgentJob, str, Progress], str]


class JobRegistry:
    """All jobs of this agent, done by `worker`. Safe to share between threads.

    `running_max` run at a time, `queued_max` may wait, `kept_max` finished ones are remembered.
    """

    def __init__(
        self,
        journal: JobJournal,
        worker: Worker,
        clock: Clock,
        log: Logger,
        *,
        running_max: int,
        queued_max: int,
        kept_max: int,
    ) -> None:
        self._journal = journal
        self._worker = worker
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
        self._entries: dict[str, Entry] = {}
        self._held: set[str] = set()
        self._last_number = 0
        self._waiters: dict[str, list[Callable[[], None]]] = {}

    def load(self, *, resume_age_max_s: float) -> None:
        """Take over the journal of the agent before. Raises UnavailableError when it cannot be written."""
        entries, damaged = self._journal.load()
        for path in damaged:
            self._log.warning(events.AGENT_JOB_UNREADABLE, path=str(path))
        moment = self._clock.now()
        now = rfc3339(moment)
        with self._lock:
            for entry in entries:
                job = entry.job
                if not job.is_finished:
                    if is_resumed(job, moment, resume_age_max_s):
                        job = requeued(job, now)
                        self._held.add(job.id)
                        self._log.info(events.AGENT_JOB_RESUMED, attempts=job.attempts, **_fields(job))
                    else:
                        job = interrupted(job, now)
                        self._log.warning(events.AGENT_JOB_INTERRUPTED, attempts=job.attempts, **_fields(job))
                    self._journal.write(replace(entry, job=job))
                self._entries[job.id] = replace(entry, job=job)
                self._last_number = max(self._last_number, entry.number)
            self._forget()

    def release(self) -> None:
        """Begin what an earlier agent left; once is enough."""
        with self._lock:
            self._held.clear()
            self._begin()

    def submit(
        self, *, action: str, guest_id: str = AGENT, image_id: str = "", request: str = "", request_id: str = ""
    ) -> AgentJob:
        """A job that does `action`, or the one that answers the same request already (decide, 3).

        Raises UnavailableError when too many wait, the agent is ending, or the journal cannot be written.
        """
        with self._taking:
            job = AgentJob(
                id=new_id(),
                guest_id=guest_id,
                action=action,
                image_id=image_id,
                queued_at=rfc3339(self._clock.now()),
                request_id=request_id,
            )
            with self._lock:
                entry = Entry(job, self._last_number + 1, request)
                if joined := job_to_join(list(self._entries.values()), entry):
                    return joined
                if self._is_closed:
                    raise UnavailableError("the agent is ending")
                unfinished = len(self._unfinished())
            if unfinished >= self._queued_max + self._running_max:
                raise UnavailableError(f"{unfinished} jobs wait or run, no more are taken", jobs=unfinished)
            self._journal.write(entry)
            self._log.info(events.AGENT_JOB_QUEUED, **_fields(job))
            with self._lock:
                self._last_number = entry.number
                self._entries[job.id] = entry
                self._begin()
                self._forget()
                return self._entries[job.id].job

    def get(self, id: str) -> AgentJob:
        """Raises NotFoundError."""
        with self._lock:
            return self._job(id)

    def newest(self, *, guest_id: str | None = None, limit: int) -> list[AgentJob]:
        """At most `limit` jobs, of one guest or of all, newest first."""
        with self._lock:
            newest = [entry.job for entry in reversed(self._entries.values())]
        jobs = [job for job in newest if guest_id in (None, job.guest_id)]
        return jobs[:limit]

    def has_unfinished(self, guest_id: str) -> bool:
        with self._lock:
            return any(job.guest_id == guest_id for job in self._unfinished())

    def call_when_finished(self, id: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once, on some thread, when the job has ended or the registry was closed; at once if it is so.

        The answer cancels it. Raises NotFoundError.
        """
        with self._lock:
            job = self._job(id)
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

    def _job(self, id: str) -> AgentJob:
        """Under the lock. Raises NotFoundError."""
        if (entry := self._entries.get(id)) is None:
            raise NotFoundError("job", id)
        return entry.job

    def _change(self, id: str, **changes: object) -> Entry:
        """Under the lock: the entry with these fields of its job changed, and its time."""
        job = msgspec.structs.replace(self._job(id), updated_at=rfc3339(self._clock.now()), **changes)
        self._entries[id] = replace(self._entries[id], job=job)
        return self._entries[id]

    def _unfinished(self) -> list[AgentJob]:
        return [entry.job for entry in self._entries.values() if not entry.job.is_finished]

    def _begin(self) -> None:
        """Under the lock: start what may start."""
        if self._is_closed:
            return
        for job in jobs_to_begin(self._unfinished(), self._running_max, self._held):
            thread = threading.Thread(target=self._run, args=(job.id,), name=f"job-{job.id[:8]}", daemon=True)
            try:
                thread.start()  # it waits for the lock that we hold
            except RuntimeError as error:  # the system has no thread left; the next end or request tries again
                self._log.warning(events.AGENT_JOB_DELAYED, error=str(error), **_fields(job))
                return
            now = rfc3339(self._clock.now())
            self._change(job.id, status="Running", started_at=now, attempts=job.attempts + 1, progress="")

    def _forget(self) -> None:
        """Under the lock: drop what is no longer kept."""
        forgotten = jobs_to_forget([entry.job for entry in self._entries.values()], self._kept_max)
        for job in forgotten:
            del self._entries[job.id]
        self._journal.forget(forgotten)

    def _run(self, id: str) -> None:
        with self._lock:
            entry = self._entries[id]
        job = entry.job
        structlog.contextvars.bind_contextvars(**_fields(job))  # also for what the work logs
        self._record(entry)  # the next agent must know that it was begun
        try:
            message = self._worker(job, entry.request, lambda text: self._tell(id, text))
        except LochnessError as error:
            self._end(id, status="Error", message=error.message, reason=error.reason)
        except Exception as error:  # the boundary of a job: whatever it is, the job has an end and the log the cause
            self._log.exception(events.AGENT_JOB_BROKE, **_fields(job))
            text = f"unexpected {type(error).__name__}, the agent's log has the details (job {id})"
            self._end(id, status="Error", message=text, reason="internal_error")
        else:
            self._end(id, status="Complete", message=message)

    def _tell(self, id: str, progress: str) -> None:
        with self._lock:
            self._change(id, progress=progress)

    def _record(self, entry: Entry) -> None:
        """Write it down; a disk that is full does not keep a guest from being deleted."""
        try:
            self._journal.write(entry)
        except UnavailableError as error:
            self._log.error(events.AGENT_JOURNAL_FAILED, error=error.message, **_fields(entry.job))

    def _end(self, id: str, *, status: JobStatus, message: str, reason: str = "") -> None:
        changes = {"status": status, "updated_at": rfc3339(self._clock.now()), "message": message, "reason": reason}
        with self._lock:
            entry = self._entries[id]
        ended = replace(entry, job=msgspec.structs.replace(entry.job, progress="", **changes), request="")
        self._record(ended)
        if status == "Complete":
            self._log.info(events.AGENT_JOB_FINISHED, message=message, **_fields(ended.job))
        else:
            self._log.warning(events.AGENT_JOB_FAILED, error=message, reason=reason, **_fields(ended.job))
        with self._lock:
            self._entries[id] = ended
            waiting = self._waiters.pop(id, [])
            self._begin()
            self._forget()
        for callback in waiting:
            callback()


def _fields(job: AgentJob) -> dict[str, str]:
    """A job as fields of a log entry."""
    fields = {"job_id": job.id, "guest_id": job.guest_id, "action": job.action, "request_id": job.request_id}
    return {**fields, "image_id": job.image_id} if job.action == FETCH_IMAGE else fields
