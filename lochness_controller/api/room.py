"""Is there room for another job? Jobs that have not ended are counted, and a limit refuses more.

Invariant: a delete is refused last: twice as many jobs are let in for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lochness.errors import OverloadedError
from lochness_controller.workers.view import JobsView

RETRY_AFTER_S: Final = 5


class Room:
    """Counts the jobs of `view` that have not ended; `jobs_max` are let in."""

    def __init__(self, view: JobsView, *, jobs_max: int) -> None:
        self._view = view
        self._jobs_max = jobs_max
        self._unfinished: set[str] = set()
        view.on_change(self._hear)

    def require(self, *, is_delete: bool = False) -> None:
        """Raise OverloadedError when there is no room for another job."""
        waiting = len(self._unfinished)
        if waiting >= self._jobs_max * (2 if is_delete else 1):
            raise OverloadedError(
                f"{waiting} jobs have not ended yet (jobs_unfinished_max {self._jobs_max})",
                reason="too_many_jobs",
                retry_after_s=RETRY_AFTER_S,
            )

    def _hear(self, job_ids: Iterable[str]) -> None:
        for id in job_ids:
            known = self._view.known(id)
            if known is None or known.job.is_finished:
                self._unfinished.discard(id)
            else:
                self._unfinished.add(id)
