"""How is a job still known, and what it was to do, after the agent was restarted?

1. One JSON file per job, replaced whole: a reader sees the old or the new one, a power cut leaves one of them.
2. When `write` returns, the job is on the disk. What a finished job was asked for is not kept.
3. Files that are no job's, or damaged, are left alone and reported.
4. Nobody but the agent's user can read them: a request may hold a guest's secrets.

Not guaranteed: that a `forget` survives a power cut; a job may come back, finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from lochness.errors import UnavailableError
from lochness.identity import is_id
from lochness_node.agent.durable import PARTIAL_SUFFIX, replace_file
from lochness_node.agent.jobs.decide import Entry
from lochness_node.agent.wire import AgentJob

_SUFFIX: Final = ".json"


class _File(AgentJob, kw_only=True, frozen=True):
    """The job as it is told, and what is the agent's own."""

    number: int = msgspec.field(name="Number", default=0)
    request: str = msgspec.field(name="Request", default="")


class JobJournal:
    """The jobs' files below `directory`, made when it is missing. Raises UnavailableError when it cannot be made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"cannot make the jobs' directory {directory}: {error.strerror}") from error

    def write(self, entry: Entry) -> None:
        """Raises UnavailableError when the disk does not take it; what was there before then stays."""
        job = entry.job
        file = _File(
            **msgspec.structs.asdict(job), number=entry.number, request="" if job.is_finished else entry.request
        )
        try:
            replace_file(self._path(job.id), msgspec.json.encode(file) + b"\n", mode=0o600)
        except OSError as error:
            raise UnavailableError(f"cannot record job {job.id} in {self._directory}: {error.strerror}") from error

    def forget(self, jobs: Iterable[AgentJob]) -> None:
        """Remove their files; one that cannot be removed comes back with the next agent, and is forgotten then."""
        for job in jobs:
            with contextlib.suppress(OSError):
                self._path(job.id).unlink(missing_ok=True)

    def load(self) -> tuple[list[Entry], list[Path]]:
        """The jobs in the order of their queueing, and the files that could not be read as one.

        Halves of files that an earlier agent was writing are removed. Raises UnavailableError.
        """
        entries, damaged = [], []
        try:
            paths = sorted(self._directory.iterdir())
        except OSError as error:
            raise UnavailableError(f"cannot read the jobs' directory {self._directory}: {error.strerror}") from error
        for path in paths:
            if path.suffix == PARTIAL_SUFFIX and is_id(path.name.partition(".")[0]):
                path.unlink(missing_ok=True)
            if path.suffix != _SUFFIX or not is_id(path.stem):
                continue
            try:
                file = msgspec.json.decode(path.read_bytes(), type=_File)
            except (OSError, msgspec.DecodeError):
                damaged.append(path)
                continue
            fields = msgspec.structs.asdict(file)
            number, request = fields.pop("number"), fields.pop("request")
            entries.append(Entry(AgentJob(**fields), number, request))
        entries.sort(key=lambda entry: (entry.number, entry.job.queued_at))
        return entries, damaged

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}{_SUFFIX}"
