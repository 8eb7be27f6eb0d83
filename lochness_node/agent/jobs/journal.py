"""How is a job's end still known after the agent was restarted?

1. One JSON file per job, replaced whole: a reader sees the old or the new one, a power cut leaves one of them.
2. When `write` returns, the job is on the disk.
3. Files that are no job's, or damaged, are left alone and reported.

Not guaranteed: that a `forget` survives a power cut; a job may come back, finished.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from lochness.errors import UnavailableError
from lochness.identity import is_id
from lochness_node.agent.durable import replace_file
from lochness_node.agent.wire import AgentJob

_SUFFIX: Final = ".json"


class JobJournal:
    """The jobs' files below `directory`, made when it is missing. Raises UnavailableError when it cannot be made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"cannot make the jobs' directory {directory}: {error.strerror}") from error

    def write(self, job: AgentJob) -> None:
        """Raises UnavailableError when the disk does not take it; what was there before then stays."""
        try:
            replace_file(self._path(job.id), msgspec.json.encode(job) + b"\n")
        except OSError as error:
            raise UnavailableError(f"cannot record job {job.id} in {self._directory}: {error.strerror}") from error

    def forget(self, jobs: Iterable[AgentJob]) -> None:
        for job in jobs:
            self._path(job.id).unlink(missing_ok=True)

    def load(self) -> tuple[list[AgentJob], list[Path]]:
        """The jobs in the order of their queueing, and the files that could not be read as one."""
        jobs, damaged = [], []
        for path in sorted(self._directory.iterdir()):
            if path.suffix != _SUFFIX or not is_id(path.stem):
                continue
            try:
                jobs.append(msgspec.json.decode(path.read_bytes(), type=AgentJob))
            except (OSError, msgspec.DecodeError):
                damaged.append(path)
        jobs.sort(key=lambda job: job.queued_at)
        return jobs, damaged

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}{_SUFFIX}"
