"""How does a person see a job run? A live line on a terminal, a line per step elsewhere; both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lochness.cli.exits import INTERRUPTED, JobFailedError
from lochness.cli.output import shown
from lochness.cli.session import Session, say
from lochness.model.record import JSONObject


class Steps:
    """What has been told of a job so far, so that each step is told once, also one that was over at the first look."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def news(self, job: JSONObject) -> list[str]:
        """The steps that have begun, or are told more about, since the last call, each in a few words."""
        texts = [step_text(step) for step in _steps_of(job)]
        if texts and job.get("status") == "working" and (progress := job.get("progress")):
            texts[-1] = f"{texts[-1]}: {progress}"
        texts = texts or [current_text(job)]
        fresh = [text for text in texts if text not in self._told]
        self._told += fresh
        return fresh


def _steps_of(job: JSONObject) -> list[JSONObject]:
    steps = job.get("steps")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def step_text(step: JSONObject) -> str:
    """A step and how it went."""
    message = step.get("message")
    return f"{step.get('action')}: {message}" if message else str(step.get("action"))


def current_text(job: JSONObject) -> str:
    """Where a job without steps is."""
    words = [str(job.get("action") or job.get("request") or "job")]
    if job.get("status") == "new":
        words.append("queued")
    if progress := job.get("progress"):
        words.append(str(progress))
    return " ".join(words)


def follow(session: Session, job_id: str, what: str, *, limit_s: float) -> JSONObject:
    """Follow a job, shown as `what`, to its end, and answer it.

    Raises JobFailedError when it ended in an error, DeadlineError after `limit_s` seconds. Ctrl-C ends the command; the
    job goes on.
    """
    job: JSONObject = {}
    steps = Steps()
    started_s = time.monotonic()
    try:
        with _display(what) as show:
            for job in session.client.follow_job(job_id, limit_s=limit_s):
                for text in steps.news(job):
                    show(text)
    except KeyboardInterrupt:
        say(f"interrupted; the job goes on: lochness job wait {job_id}")
        raise SystemExit(INTERRUPTED) from None
    if job.get("status") == "error":
        raise JobFailedError(failure_text(job, what))
    sys.stderr.write(f"{shown(what)}: done in {time.monotonic() - started_s:.1f} s\n")
    return job


def failure_text(job: JSONObject, what: str) -> str:
    """What a failed job says, with where it failed."""
    step, error = job.get("action") or "the job", job.get("error") or "no reason given"
    return f"{what}: {step} failed: {error} (job {job.get('id')})"


@contextmanager
def _display(what: str) -> Iterator[Callable[[str], None]]:
    """Yields what shows a step."""
    if not sys.stderr.isatty():

        def print_step(text: str) -> None:
            sys.stderr.write(f"{shown(what)}: {shown(text)}\n")
            sys.stderr.flush()

        yield print_step
        return
    from rich.console import Console  # loaded for a terminal only: it takes longer to import than --help may take
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(shown(what), total=None)

        def show_step(text: str) -> None:
            progress.console.print(f"  {shown(what)}: {shown(text)}", markup=False, highlight=False, soft_wrap=True)
            progress.update(task, description=f"{shown(what)}: {shown(text)}")

        yield show_step
