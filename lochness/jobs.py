"""How does one ask for a job's end before its time?

    request_cancel(store, job_id, clock.now())

Invariants:
1. A request is one field of the job, written with a compare: it never overwrites what the job's worker wrote.
2. A job that has ended is not changed any more.

Not guaranteed: that the job ends as cancelled. What its agent was asked for already may be done by then; the job's own
end says what became of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from lochness import keys
from lochness.errors import AmbiguousWriteError, ConflictError, NotFoundError
from lochness.ids import parse_id
from lochness.model.job import JobRecord, rfc3339
from lochness.store.protocol import Key, Store
from lochness.transactions import update_job

#: How often a request is written anew because the job moved on meanwhile; a job has about six moves in all.
CANCEL_ATTEMPTS_MAX: Final = 10


def request_cancel(store: Store, job_id: str, now: datetime) -> JobRecord:
    """Ask the job's worker to end it soon; answers the job as it is now. Asking twice is asking once.

    Raises NotFoundError, ConflictError (reason "already_finished": the job has ended; "conflict": it moved on
    CANCEL_ATTEMPTS_MAX times meanwhile), UnavailableError, AmbiguousWriteError when it is not known after that many
    tries.
    """
    id = parse_id(job_id)
    problem: ConflictError | AmbiguousWriteError | None = None
    for _ in range(CANCEL_ATTEMPTS_MAX):
        item = store.read(Key(keys.job(id))).one()
        if item is None:
            raise NotFoundError("job", id)
        job = JobRecord.from_json(item.value)
        if job.is_finished:
            raise ConflictError(
                f"job {id} has ended already: {job.status} at {job.finished_at}", reason="already_finished"
            )
        if job.is_cancel_requested:
            return job
        asked = job.patched({"cancel_requested_at": rfc3339(now)})
        try:
            update_job(asked, item.mod_revision).commit(store)
        except (ConflictError, AmbiguousWriteError) as error:
            problem = error  # read again: it has moved on, or what we wrote is there
        else:
            return asked
    assert problem is not None
    raise problem
