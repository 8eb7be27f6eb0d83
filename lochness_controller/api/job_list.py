"""Which jobs are there, newest first? Kept key by key, so that a list costs what it shows and not what is kept.

Invariants:
1. Jobs stand in the order of their creation; a change of one leaves it at its place.
2. A job's bytes are kept as the store has them, and made into the answer's JSON when it is listed.

Not guaranteed: that a job which this version can not read is listed; `lochness fsck` names it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.job import JobRecord
from lochness.store.protocol import Change, KeyValue


class JobList:
    """Safe to share between threads. `items` are of lochness/jobs/, in any order."""

    def __init__(self, items: Iterable[KeyValue] = ()) -> None:
        self._lock = threading.Lock()
        # A dict keeps the order in which its keys came: that of creation, also for what a watch brings.
        self._jobs = {item.key: item.value for item in sorted(items, key=lambda item: item.create_revision)}

    def replace(self, other: JobList) -> None:
        """Be what `other` is. `other` is not used any more."""
        with self._lock:
            self._jobs = other._jobs

    def apply(self, changes: Iterable[Change]) -> None:
        """Take in what has changed; keys of others are left alone."""
        with self._lock:
            for change in changes:
                if not change.key.startswith(keys.JOB_PATH):
                    continue
                if change.value is None:
                    self._jobs.pop(change.key, None)
                else:
                    self._jobs[change.key] = change.value

    def newest(self, guest: str, limit: int) -> list[bytes]:
        """The JSON of at most `limit` jobs, newest first; of one guest only, unless that is ""."""
        with self._lock:
            values = [*self._jobs.values()]
        found: list[bytes] = []
        name = guest.encode()
        for value in reversed(values):
            if len(found) == limit:
                break
            if name not in value:
                continue  # much cheaper than decoding it
            try:
                job = JobRecord.from_json(value)
            except ValidationError:
                continue
            if not guest or job.guest == guest:
                found.append(job.to_json())
        return found
