"""lochness top: how are the hosts now? A view that stays, or one look."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness.cli.exits import error_line
from lochness.cli.guest import state_of
from lochness.cli.hv import usage_text
from lochness.cli.output import Format, print_records, shown, table, width
from lochness.cli.session import Session, identity_of, name_of
from lochness.errors import LochnessError

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

_JOBS_LOOKED_AT: Final = 1000
_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # a screen of its own, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"

_TITLES: Final = ("NAME", "ALIVE", "MEMORY", "DISK", "CPU", "GUESTS", "NOT AS WANTED", "ADDRESS")
_IS_NUMBER: Final = (False, False, True, True, True, True, True, False)


def top(
    session: Session,
    once: Annotated[
        bool, typer.Option("--once", help="One look, without a screen of its own.", show_default=False)
    ] = False,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="Between two looks.")] = 2.0,
) -> None:
    """Show the hosts: alive, memory, disk and CPUs used of those there are, guests; and the jobs. Ctrl-C ends it.

    Example: lochness top --once
    """
    if session.form is not Format.TABLE:
        print_records(_rows(*_read(session)[:2]), session.form)
        return
    if once or not sys.stdout.isatty():
        sys.stdout.write("\n".join(view(*_read(session), now=datetime.now(UTC))) + "\n")
        return
    _stay(session, interval)


def _stay(session: Session, interval_s: float) -> None:
    lines = view(*_read(session), now=datetime.now(UTC))  # what fails at the first look ends the command
    sys.stdout.write(_ENTER)
    trouble = ""
    try:
        while True:
            size = shutil.get_terminal_size()
            head = [f"{session.client.server}  {time.strftime('%H:%M:%S')}  {trouble}".rstrip()]
            _draw([*head, *lines], size.columns, size.lines)
            time.sleep(interval_s)
            try:
                lines = view(*_read(session), now=datetime.now(UTC))
                trouble = ""
            except LochnessError as error:
                trouble = f"not up to date: {error_line(error)}"
    except KeyboardInterrupt:
        return
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _draw(lines: Sequence[str], columns: int, rows: int) -> None:
    if len(lines) > rows:
        lines = [*lines[: rows - 1], f"... {len(lines) - rows + 1} more"]
    sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(_cut(line, columns) for line in lines) + "\x1b[J")
    sys.stdout.flush()


def _cut(line: str, columns: int) -> str:
    while width(line) > columns:
        line = line[: columns - (width(line) - len(line))] if len(line) > columns else line[:-1]
    return line


def _read(session: Session) -> tuple[list[JSONObject], list[JSONObject], list[JSONObject]]:
    client = session.client
    return (client.records("/hypervisors"), client.records("/guests"), client.records("/jobs", limit=_JOBS_LOOKED_AT))


def view(
    hypervisors: Sequence[JSONObject], guests: Sequence[JSONObject], jobs: Sequence[JSONObject], *, now: datetime
) -> list[str]:
    """The lines of the view. Pure."""
    alive = sum(bool(each.get("alive")) for each in hypervisors)
    states = Counter(state_of(guest) for guest in guests)
    unfinished = Counter(str(job.get("status")) for job in jobs if job.get("status") not in ("done", "error"))
    head = [
        f"hypervisors: {len(hypervisors)}, {alive} alive",
        f"guests: {len(guests)}{_counted(states)}",
        f"jobs: {sum(unfinished.values())} unfinished{_counted(unfinished)}",
    ]
    rows = [
        [
            shown(name_of(each) or identity_of(each)), shown(alive_text(each, now)), usage_text(each, "memory"),
            usage_text(each, "disk"), usage_text(each, "cpu"), str(each["guests"]), str(each["not_as_wanted"] or "-"),
            shown(str(each.get("ip") or "-")),
        ]
        for each in _rows(hypervisors, guests)
    ]  # fmt: skip
    return [*head, "", *table(_TITLES, rows, _IS_NUMBER)]


def _counted(counts: Counter[str]) -> str:
    words = ", ".join(f"{count} {shown(word)}" for word, count in sorted(counts.items()))
    return f" ({words})" if words else ""


def _rows(hypervisors: Sequence[JSONObject], guests: Sequence[JSONObject]) -> list[JSONObject]:
    """Each hypervisor with how many guests it has, and how many of them are not in the state they should be in."""
    on: Counter[str] = Counter()
    not_as_wanted: Counter[str] = Counter()
    for guest in guests:
        host = str(guest.get("hypervisor") or "")
        on[host] += 1
        not_as_wanted[host] += guest.get("power") not in (None, state_of(guest))
    rows: list[JSONObject] = [
        {**each, "guests": on[str(each.get("id"))], "not_as_wanted": not_as_wanted[str(each.get("id"))]}
        for each in hypervisors
    ]
    return sorted(rows, key=lambda row: (name_of(row) or "\uffff", identity_of(row)))


def alive_text(hypervisor: JSONObject, now: datetime) -> str:
    """Whether it beats, and for how long it has not. Pure."""
    if hypervisor.get("alive"):
        return "yes, cordoned" if hypervisor.get("cordoned") else "yes"
    try:
        lost = datetime.fromisoformat(str(hypervisor.get("lost_since") or ""))
        return f"no, for {span_text((now - lost).total_seconds())}"
    except (ValueError, TypeError):
        return "no"


def span_text(span_s: float) -> str:
    """Seconds in the unit that reads best."""
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if span_s < limit_s:
            return f"{max(0, int(span_s // unit_s))} {unit}"
    return f"{int(span_s // 86_400)} d"
