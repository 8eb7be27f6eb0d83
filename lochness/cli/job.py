"""lochness job: the asynchronous operations, running and finished (kept 24 hours)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness.cli.arguments import WAIT_LIMIT_S, TimeoutOption, Words
from lochness.cli.collection import add_show
from lochness.cli.command import command, noun
from lochness.cli.follow import follow
from lochness.cli.output import Column, Format, plain, print_list, print_records
from lochness.cli.session import Kind, Session

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

app = noun("job", "Jobs: what was asked for, and how it went.")


_UNSET_TIME: Final = "0001-01-01T00:00:00Z"


def duration_text(job: JSONObject) -> str:
    """How long a finished job took; "-" for one that has not finished."""
    times = [str(job.get(field) or _UNSET_TIME) for field in ("started_at", "finished_at")]
    if _UNSET_TIME in times:
        return "-"
    try:
        started, finished = (datetime.fromisoformat(text) for text in times)
        return f"{(finished - started).total_seconds():.1f}s"
    except (ValueError, TypeError):
        return "-"


def columns(guest_names: dict[str, str]) -> list[Column]:
    """The columns of `job list`."""
    return [
        Column("ID", lambda job: plain(job.get("id"))),
        Column("REQUEST", lambda job: plain(job.get("request") or job.get("action"))),
        Column("STEP", lambda job: plain(job.get("action"))),
        Column("GUEST", lambda job: guest_names.get(str(job.get("guest")), plain(job.get("guest")))),
        Column("STATUS", lambda job: plain(job.get("status"))),
        Column("TOOK", duration_text, is_number=True),
        Column("ERROR", lambda job: plain(job.get("error"))),
    ]


@command(app, "list")
def list_jobs(
    session: Session,
    guest: Annotated[
        str | None, typer.Option("--guest", metavar="ID|NAME", help="Only those of it.", show_default=False)
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only new, working, done or error.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest first.")] = 50,
) -> None:
    """List jobs.

    Example: lochness job list --guest web1
    """
    wanted = session.id_of(Kind.GUEST, guest) if guest else None
    jobs = session.client.records(Kind.JOB.path, guest=wanted, limit=None if status else limit)
    if status:
        jobs = [job for job in jobs if job.get("status") == status][:limit]
    names = session.names(Kind.GUEST) if jobs and session.form is Format.TABLE else {}
    print_list(jobs, columns(names), session.form)


add_show(app, Kind.JOB, "job show 5bd60bb1-2a5e-4b9c-8e36-1cdbb4a5c1de")


@command(app, "wait")
def wait(session: Session, jobs: Words, timeout: TimeoutOption = WAIT_LIMIT_S) -> None:
    """Follow jobs to their ends; exit status 1 when one ended in an error.

    Example: lochness job wait 5bd60bb1-2a5e-4b9c-8e36-1cdbb4a5c1de
    """

    def wait_for(word: str) -> None:
        id = session.id_of(Kind.JOB, word)
        finished = follow(session, id, f"job {id}", limit_s=timeout)
        if session.form is not Format.TABLE:
            print_records([finished], session.form)

    session.for_each(jobs, wait_for)


@command(app, "cancel")
def cancel(session: Session, jobs: Words) -> None:
    """Ask for the end of jobs before their time; job wait tells what became of one.

    Example: lochness job cancel 5bd60bb1-2a5e-4b9c-8e36-1cdbb4a5c1de
    """

    def cancel_one(word: str) -> None:
        print_records([session.client.cancel_job(session.id_of(Kind.JOB, word))], session.form)

    session.for_each(jobs, cancel_one)
