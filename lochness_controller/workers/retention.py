"""Which jobs that have ended are kept, and how are the others removed?

Invariants:
1. A job is kept for `job_kept_s` after its end, unless more than `jobs_kept_max` have ended: then the oldest go first.
2. An unfinished job is never removed, and every removal is compared with the job as it was seen.
3. Transactions of at most `PRUNE_BATCH` jobs, at most `PRUNE_MAX` jobs a pass: removing a day's jobs takes turns with
   everything else the store does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from lochness import events, keys
from lochness.clock import Clock
from lochness.errors import ConflictError, LochnessError
from lochness.log import get_logger
from lochness.model.job import rfc3339
from lochness.store.protocol import Delete, KeyUnchanged, Store
from lochness_controller.settings import ControllerSettings
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.view import JobsView

PRUNE_INTERVAL_S: Final = 60.0
PRUNE_BATCH: Final = 100
PRUNE_MAX: Final = 10_000
#: A pass that left some behind is followed by the next so soon.
_NEXT_S: Final = 1.0

_log = get_logger("workers")


class Retention:
    """Removes old jobs; `prune` may wait for the store."""

    def __init__(self, store: Store, view: JobsView, settings: ControllerSettings, clock: Clock) -> None:
        self._store = store
        self._view = view
        self._settings = settings
        self._clock = clock
        self._next_s = time.monotonic()
        self._is_running = False

    def is_due(self) -> bool:
        """Whether it is time for `prune`."""
        return self._view.is_filled and not self._is_running and time.monotonic() >= self._next_s

    def prune(self) -> None:
        """One pass. A store that is away, or another controller that prunes: the rest is for the next one."""
        self._is_running = True
        try:
            before = self._clock.now() - timedelta(seconds=self._settings.job_kept_s)
            old = prunable(self._view.jobs(), before, self._settings.jobs_kept_max)
            self._next_s = time.monotonic() + (PRUNE_INTERVAL_S if len(old) <= PRUNE_MAX else _NEXT_S)
            self._remove(old[:PRUNE_MAX])
        finally:
            self._is_running = False

    def _remove(self, old: list[KnownJob]) -> None:
        for start in range(0, len(old), PRUNE_BATCH):
            batch = old[start : start + PRUNE_BATCH]
            names = [keys.job(known.job.id) for known in batch]
            compares = [KeyUnchanged(name, known.mod_revision) for name, known in zip(names, batch, strict=True)]
            try:
                self._store.commit(compares, [Delete(name) for name in names])
            except ConflictError:
                return  # another controller prunes
            except LochnessError as error:
                _log.info(events.JOB_DELAYED, jobs=len(batch), error=error.message, reason=error.reason)
                return
            _log.info(events.JOBS_PRUNED, jobs=len(batch))


def prunable(jobs: Iterable[KnownJob], before: datetime, kept_max: int) -> list[KnownJob]:
    """The jobs to remove, those that ended first at the front."""
    ended = sorted((known for known in jobs if known.job.is_finished), key=lambda known: known.job.finished_at)
    limit = rfc3339(before)
    too_many = len(ended) - kept_max
    return [known for number, known in enumerate(ended) if number < too_many or known.job.finished_at < limit]
