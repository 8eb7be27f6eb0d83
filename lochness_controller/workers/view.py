"""What is known of all jobs, in memory, kept by a watch and by what this process wrote itself.

Invariants:
1. What is known of a job never goes back to an older revision, unless the store itself did (it was emptied, or restored
   from a backup): then what the store says holds, and nothing that was known before.
2. Whoever is told of a change can read it here already.
3. What this process wrote is known before the watch brings it. What no reading confirms by the second one is forgotten.
4. Of a job that has ended only what decides about it is kept: they are kept by the hundred thousand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.job import JobRecord
from lochness.store.protocol import KeyValue, Reading, WatchBatch
from lochness_controller.workers.decide import KnownJob

#: Called with the ids of jobs that have changed or are gone, on the thread that learned of it. Must not wait.
OnChange = Callable[[Iterable[str]], None]


class JobsView:
    """All jobs as last seen. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, KnownJob] = {}
        self._listeners: list[OnChange] = []
        self._watched = 0  # up to which revision the watch has told
        self._unconfirmed: dict[str, int] = {}  # jobs that were newer than the last reading -> their revision
        #: Whether a full reading was taken over; before that `jobs` knows too little to decide by.
        self.is_filled = False

    def on_change(self, listener: OnChange) -> None:
        """Tell `listener` from now on."""
        self._listeners.append(listener)

    def jobs(self) -> tuple[KnownJob, ...]:
        """All of them, in no order."""
        with self._lock:
            return tuple(self._jobs.values())

    def known(self, job_id: str) -> KnownJob | None:
        """One of them, as last seen; of one that has ended no more than `_kept` says."""
        with self._lock:
            return self._jobs.get(job_id)

    def take_snapshot(self, reading: Reading) -> None:
        """Take over a reading of all of lochness/jobs/."""
        with self._lock:
            # Readings only ever go on: one that does not is of another store, whose revisions say other things.
            before = self._jobs if reading.revision >= self._watched else {}
        fresh = {known.job.id: known for item in reading.ranges[0] if (known := _known(item, before))}
        with self._lock:
            newer = {id: known for id, known in self._jobs.items() if known.mod_revision > reading.revision}
            if reading.revision < self._watched:
                newer = {}  # readings only ever go on: this store is not the one that was watched
            # What this process wrote after the reading is newer than the reading; the next one has it.
            newer = {id: known for id, known in newer.items() if self._unconfirmed.get(id) != known.mod_revision}
            self._unconfirmed = {id: known.mod_revision for id, known in newer.items()}
            self._watched = reading.revision
            fresh |= newer
            changed = {id for id, known in fresh.items() if not known.job.is_finished or self._jobs.get(id) != known}
            changed |= self._jobs.keys() - fresh.keys()
            self._jobs = fresh
            self.is_filled = True
        # In the order of their creation: that is the order in which they are taken up.
        self._tell(sorted(changed, key=lambda id: fresh[id].create_revision if id in fresh else 0))

    def take_batch(self, batch: WatchBatch) -> None:
        """Take over what a watch of lochness/jobs/ brought."""
        with self._lock:
            self._watched = batch.revision
            for change in batch.changes:
                if change.value is None:
                    id = keys.last_part(change.key)
                    if id in self._jobs and self._jobs[id].mod_revision < change.mod_revision:
                        del self._jobs[id]
                    continue
                item = KeyValue(change.key, change.value, change.create_revision, change.mod_revision)
                if known := _known(item, {}):
                    self._put(known)
        self._tell(keys.last_part(change.key) for change in batch.changes)

    def learn(self, job: JobRecord, mod_revision: int, create_revision: int) -> None:
        """Take over what this process has just written or read."""
        with self._lock:
            self._put(_kept(KnownJob(job, mod_revision, create_revision)))
        self._tell((job.id,))

    def put_back(self, job: JobRecord, mod_revision: int, create_revision: int) -> None:
        """Take over what the store says of a job of which something newer was known: the store went back."""
        with self._lock:
            self._jobs[job.id] = _kept(KnownJob(job, mod_revision, create_revision))
        self._tell((job.id,))

    def forget(self, job_id: str, mod_revision: int) -> None:
        """The job was seen to be gone, after `mod_revision`."""
        with self._lock:
            known = self._jobs.get(job_id)
            if known is not None and known.mod_revision <= mod_revision:
                del self._jobs[job_id]
        self._tell((job_id,))

    def _put(self, known: KnownJob) -> None:
        before = self._jobs.get(known.job.id)
        if before is None or before.mod_revision <= known.mod_revision:
            self._jobs[known.job.id] = known

    def _tell(self, ids: Iterable[str]) -> None:
        told = tuple(ids)
        for listener in self._listeners:
            listener(told)


def _known(item: KeyValue, before: Mapping[str, KnownJob]) -> KnownJob | None:
    """The job in a key-value; None for one that this version can not read: it is left to one that can.

    One that has ended and stands unchanged among those known `before` is not decoded again: most are like that.
    """
    known = before.get(keys.last_part(item.key))
    if known is not None and known.mod_revision == item.mod_revision and known.job.is_finished:
        return known
    try:
        return _kept(KnownJob(JobRecord.from_json(item.value), item.mod_revision, item.create_revision))
    except ValidationError:
        return None


def _kept(known: KnownJob) -> KnownJob:
    """What is kept of it: all while it is unfinished, else a tenth (5 kB of a create, decoded with its explanation)."""
    job = known.job
    if not job.is_finished:
        return known
    ended = JobRecord(
        id=job.id,
        guest=job.guest,
        action=job.action,
        status=job.status,
        worker=job.worker,
        finished_at=job.finished_at,
    )
    return KnownJob(ended, known.mod_revision, known.create_revision)
