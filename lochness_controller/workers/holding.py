"""How does a worker keep the job that it works on, and how does it notice that it is no longer its own?

Invariants:
1. Every save is compared with the revision that this worker wrote or read last: of two workers, one goes on.
2. A save whose outcome is not known is settled by reading the job again before anything else.
3. A store that is away is waited for, at most `SAVE_LIMIT_S`; the job then stays as it is for whoever takes it up next.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from lochness import keys
from lochness.errors import AmbiguousWriteError, ConflictError, LochnessError, UnavailableError
from lochness.model.job import JobRecord
from lochness.store.protocol import Key, KeyValue, Store
from lochness.transactions import Transaction, update_job
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.view import JobsView

SAVE_LIMIT_S: Final = 60.0
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0

_NOTHING: Final = Transaction((), ())


class JobLeftError(Exception):
    """The worker leaves the job as it is in the store. No failure of the job, so not a LochnessError."""


class StoppingError(JobLeftError):
    """The controller stops."""


class JobLostError(JobLeftError):
    """Another controller works on the job by now, or it is gone."""


class StoreAwayError(JobLeftError):
    """The store took no write for SAVE_LIMIT_S."""


class HeldJob:
    """A job in a worker's hands. Used by one thread; what it saves is in `view` before `save` returns."""

    def __init__(self, store: Store, view: JobsView, known: KnownJob, stopping: threading.Event) -> None:
        self._store = store
        self._view = view
        self._known = known
        self._stopping = stopping

    @property
    def job(self) -> JobRecord:
        """As last saved."""
        return self._known.job

    def save(self, job: JobRecord, *, also: Transaction = _NOTHING) -> None:
        """Write the job's next state, in one transaction with `also`.

        Raises ConflictError when only something in `also` had changed (nothing is written), and JobLeftError.
        """
        key = keys.job(job.id)
        transaction = update_job(job, self._known.mod_revision) + also
        deadline_s = time.monotonic() + SAVE_LIMIT_S
        retry_s = RETRY_MIN_S
        revision: int | None = None
        while revision is None:
            try:
                revision = transaction.commit(self._store)
            except ConflictError as error:
                if key not in error.keys:
                    raise
                revision = self._settled(job, deadline_s)
            except AmbiguousWriteError as error:
                revision = self._settled(job, deadline_s)
                if revision is None:
                    self._pause_before(deadline_s, retry_s, error)
            except UnavailableError as error:
                self._pause_before(deadline_s, retry_s, error)
            retry_s = min(retry_s * 2, RETRY_MAX_S)
        self._adopt(job, revision)

    def pause(self, seconds: float) -> None:
        """Wait; raises StoppingError as soon as the controller stops."""
        if self._stopping.wait(seconds):
            raise StoppingError

    def _settled(self, job: JobRecord, deadline_s: float) -> int | None:
        """The revision of `job` when an earlier try did save it, None when the job is as it was before."""
        item = self._read(deadline_s)
        if item is None:
            self._view.forget(job.id, self._known.mod_revision)
            raise JobLostError(f"job {job.id} is gone")
        if item.value == job.to_json():
            return item.mod_revision
        if item.mod_revision == self._known.mod_revision:
            return None  # should the earlier try take effect yet, the next one's compare fails
        self._view.learn(JobRecord.from_json(item.value), item.mod_revision, item.create_revision)
        raise JobLostError(f"job {job.id} was changed by another controller")

    def _read(self, deadline_s: float) -> KeyValue | None:
        retry_s = RETRY_MIN_S
        while True:
            try:
                return self._store.read(Key(keys.job(self.job.id))).one()
            except UnavailableError as error:
                self._pause_before(deadline_s, retry_s, error)
            retry_s = min(retry_s * 2, RETRY_MAX_S)

    def _pause_before(self, deadline_s: float, retry_s: float, error: LochnessError) -> None:
        if time.monotonic() >= deadline_s:
            raise StoreAwayError(f"job {self.job.id} could not be saved within {SAVE_LIMIT_S:g} s") from error
        self.pause(retry_s)

    def _adopt(self, job: JobRecord, revision: int) -> None:
        self._known = KnownJob(job, revision, self._known.create_revision)
        self._view.learn(job, revision, self._known.create_revision)
