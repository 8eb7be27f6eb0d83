"""How does a worker keep the job that it works on, and how does it notice that it is no longer its own?

Invariants:
1. Every save is compared with the revision that this worker wrote or read last: of two workers, one goes on.
2. A save whose outcome is not known is settled by reading the job again before anything else.
3. A store that is away is waited for, at most `SAVE_LIMIT_S`; the job then stays as it is for whoever takes it up next.
4. A request to cancel, the one thing that others write into a held job, is kept by every save and heard in every wait.
5. What is noted and not saved yet is written with the next save; a worker that takes the job up before that must come
   to do without it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from lochness import keys
from lochness.errors import AmbiguousWriteError, ConflictError, LochnessError, OverloadedError, UnavailableError
from lochness.model.job import JobRecord
from lochness.store.lookup import Lookup
from lochness.store.protocol import Key, KeyValue
from lochness.transactions import Transaction, update_job
from lochness_controller.group_commit import GroupCommit
from lochness_controller.group_read import GroupRead
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.view import JobsView

SAVE_LIMIT_S: Final = 60.0
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0

_NOTHING: Final = Transaction((), ())

T = TypeVar("T")


class JobLeftError(Exception):
    """The worker leaves the job as it is in the store. No failure of the job, so not a LochnessError."""


class JobLostError(JobLeftError):
    """Another controller works on the job by now, or it is gone."""


class StoreAwayError(JobLeftError):
    """The store took no write for SAVE_LIMIT_S."""


class CancelRequestedError(LochnessError):
    """Somebody has asked for the job's end."""

    reason = "cancelled"


class HeldJob:
    """A job in a worker's hands, on one event loop; what it saves is in `view` before `save` returns.

    What the jobs of one loop read and save goes through `reads` and `commits` together.
    """

    def __init__(self, view: JobsView, known: KnownJob, reads: GroupRead, commits: GroupCommit) -> None:
        self._view = view
        self._known = known
        self._noted: JobRecord | None = None
        self._reads = reads
        self._commits = commits
        self._cancel_requested = asyncio.Event()
        #: False: a request to cancel changes nothing any more.
        self.is_cancellable = True
        self.notice(known)

    @property
    def known(self) -> KnownJob:
        """The job with its revisions, as last saved."""
        return self._known

    @property
    def job(self) -> JobRecord:
        """As last saved or noted."""
        return self._noted or self._known.job

    def note(self, job: JobRecord) -> None:
        """The job is like this by now, which need not be written for itself."""
        self._noted = job

    @property
    def is_noted(self) -> bool:
        """Whether something was noted and not saved yet."""
        return self._noted is not None

    async def look_up(self, lookup: Lookup[T]) -> T:
        """The outcome of a lookup. Raises what it raises, and UnavailableError."""
        return await self._reads.look_up(lookup)

    async def read(self, key: str) -> KeyValue | None:
        """One key of the store as it is now. Raises UnavailableError."""
        return (await self._reads.read(Key(key))).one()

    def notice(self, known: KnownJob) -> None:
        """The job was seen like this in the store."""
        if known.job.is_cancel_requested:
            self._cancel_requested.set()

    def check_cancel(self) -> None:
        """Raise CancelRequestedError when somebody has asked for the job's end."""
        if self.is_cancellable and self._cancel_requested.is_set():
            raise CancelRequestedError(f"cancelled during {self.job.action}, as requested")

    async def unless_cancelled(self, waiting: Coroutine[Any, Any, T]) -> T:
        """The outcome of `waiting`, which is ended early by CancelRequestedError. For what may be broken off."""
        if not self.is_cancellable:
            return await waiting
        task = asyncio.ensure_future(waiting)
        cancel = asyncio.ensure_future(self._cancel_requested.wait())
        try:
            await asyncio.wait((task, cancel), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.check_cancel()
            return await task
        finally:
            task.cancel()
            cancel.cancel()
            await asyncio.gather(task, cancel, return_exceptions=True)

    async def pause(self, seconds: float) -> None:
        """Wait, unless the job is cancelled."""
        await self.unless_cancelled(asyncio.sleep(seconds))

    async def save(self, job: JobRecord, *, also: Transaction = _NOTHING) -> None:
        """Write the job's next state, in one transaction with `also`.

        Raises ConflictError when only something in `also` had changed (nothing is written), and JobLeftError.
        """
        key = keys.job(job.id)
        deadline_s = time.monotonic() + SAVE_LIMIT_S
        retry_s = RETRY_MIN_S
        revision: int | None = None
        while revision is None:
            job = job.with_fields(cancel_requested_at=self._known.job.cancel_requested_at)
            transaction = update_job(job, self._known.mod_revision) + also
            try:
                revision = await self._commits.commit(transaction)
            except ConflictError as error:
                if key not in error.keys:
                    raise
                revision = await self._settled(job, deadline_s)
            except AmbiguousWriteError as error:
                revision = await self._settled(job, deadline_s)
                if revision is None:
                    await self._pause_before(deadline_s, retry_s, error)
            except (UnavailableError, OverloadedError) as error:
                await self._pause_before(deadline_s, retry_s, error)
            retry_s = min(retry_s * 2, RETRY_MAX_S)
        self._known, self._noted = KnownJob(job, revision, self._known.create_revision), None
        self._view.learn(job, revision, self._known.create_revision)

    async def _settled(self, job: JobRecord, deadline_s: float) -> int | None:
        """The revision of `job` when an earlier try did save it, None when the job is as it was before."""
        item = await self._read(deadline_s)
        if item is None:
            self._view.forget(job.id, self._known.mod_revision)
            raise JobLostError(f"job {job.id} is gone")
        if item.mod_revision == self._known.mod_revision:
            return None  # should the earlier try take effect yet, the next one's compare fails
        found = KnownJob(JobRecord.from_json(item.value), item.mod_revision, item.create_revision)
        is_saved = _is_same(found.job, job)
        if is_saved or _is_same(found.job, self._known.job):
            self._known = found  # what we wrote, or what it was before, with a request to cancel perhaps
            self._view.learn(found.job, found.mod_revision, found.create_revision)
            self.notice(found)
            is_saved_whole = is_saved and found.job.cancel_requested_at == job.cancel_requested_at
            return found.mod_revision if is_saved_whole or found.job.is_finished else None
        if found.mod_revision < self._known.mod_revision:
            self._view.put_back(found.job, found.mod_revision, found.create_revision)
            raise JobLostError(f"job {job.id} is as it was before, the store was restored from a backup")
        self._view.learn(found.job, found.mod_revision, found.create_revision)
        raise JobLostError(f"job {job.id} was changed by another controller")

    async def _read(self, deadline_s: float) -> KeyValue | None:
        retry_s = RETRY_MIN_S
        while True:
            try:
                return await self.read(keys.job(self.job.id))
            except UnavailableError as error:
                await self._pause_before(deadline_s, retry_s, error)
            retry_s = min(retry_s * 2, RETRY_MAX_S)

    async def _pause_before(self, deadline_s: float, retry_s: float, error: LochnessError) -> None:
        if time.monotonic() >= deadline_s:
            raise StoreAwayError(f"job {self.job.id} could not be saved within {SAVE_LIMIT_S:g} s") from error
        await asyncio.sleep(retry_s)


def _is_same(one: JobRecord, other: JobRecord) -> bool:
    """Whether the two differ in nothing, a request to cancel aside."""
    blank = one.with_fields(cancel_requested_at=other.cancel_requested_at)
    return blank.to_json() == other.to_json()
