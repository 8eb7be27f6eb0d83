"""lochness explain: where would a guest go, and why not elsewhere? Nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness.cli.arguments import MetadataOption, pairs
from lochness.cli.exits import FAILED
from lochness.cli.output import Column, Format, megabytes, plain, print_lines, print_list, print_records
from lochness.cli.session import Kind, Session
from lochness.errors import ValidationError

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

PATH: Final = "/placement"

COLUMNS = [
    Column("RANK", lambda verdict: plain(verdict.get("rank")), is_number=True),
    Column("HYPERVISOR", lambda verdict: str(verdict.get("name") or verdict.get("hypervisor"))),
    Column("MEMORY", lambda verdict: _size(verdict, "free_memory"), is_number=True),
    Column("DISK", lambda verdict: _size(verdict, "free_disk"), is_number=True),
    Column("CPU", lambda verdict: plain(verdict.get("free_cpu")), is_number=True),
    Column("GUESTS", lambda verdict: plain(verdict.get("guests")), is_number=True),
    Column("WHY NOT", lambda verdict: plain(verdict.get("text") or verdict.get("reason"))),
]


def _size(verdict: JSONObject, field: str) -> str:
    amount = verdict.get(field)
    return megabytes(amount) if isinstance(amount, int) else plain(amount)


def explain(
    session: Session,
    guest: Annotated[
        str | None, typer.Argument(metavar="[GUEST]", help="One that exists: its id or name.", show_default=False)
    ] = None,
    flavor: Annotated[str | None, typer.Option("--flavor", metavar="ID|NAME", show_default=False)] = None,
    network: Annotated[str | None, typer.Option("--network", metavar="ID|NAME", show_default=False)] = None,
    metadata: MetadataOption = None,
) -> None:
    """Say where a guest would go now, and what keeps it from each other hypervisor. Exit status 1: nowhere.

    A guest that has its place is looked at as if it had none. --flavor, --network and --metadata make one up, or change
    the one that is named. The columns show what is free.

    Example: lochness explain --flavor small --network lan
    """
    if guest is None and (flavor is None or network is None):
        raise ValidationError("name a guest, or --flavor and --network (see lochness explain --help)", field="guest")
    asked: JSONObject = {}
    if guest is not None:
        asked["guest"] = session.id_of(Kind.GUEST, guest)
    if flavor is not None:
        asked["flavor"] = session.id_of(Kind.FLAVOR, flavor)
    if network is not None:
        asked["network"] = session.id_of(Kind.NETWORK, network)
    if given := pairs(metadata, what="metadata"):
        asked["metadata"] = given
    answer = session.client.create(PATH, asked)
    _print(session, answer, guest or "such a guest")
    if not answer.get("is_placed"):
        session.failures.append(FAILED)


def _print(session: Session, answer: JSONObject, what: str) -> None:
    verdicts = [each for each in answer.get("hypervisors") or () if isinstance(each, dict)]
    if session.form is Format.JSON:
        print_records([answer], session.form)
    elif session.form is Format.ID:
        print_records([{"id": each.get("hypervisor")} for each in verdicts if each.get("rank")], session.form)
    else:
        print_lines([*_headline(answer, what, verdicts), *_tally(answer), ""])
        print_list(verdicts, COLUMNS, session.form)


def _headline(answer: JSONObject, what: str, verdicts: list[JSONObject]) -> list[str]:
    if not answer.get("is_placed"):
        return [f"{what} would find no place: {answer.get('message') or answer.get('reason')}"]
    names = {each.get("hypervisor"): each.get("name") or each.get("hypervisor") for each in verdicts}
    id = answer.get("hypervisor")
    return [f"{what} would go to {names.get(id, id)}, with {answer.get('ip')} on {answer.get('bridge')}"]


def _tally(answer: JSONObject) -> list[str]:
    """What each candidate function removed, a line each."""
    lines = []
    for entry in answer.get("functions") or ():
        reasons = ", ".join(f"{count} {reason}" for reason, count in (entry.get("reasons") or {}).items())
        line = f"  {entry.get('function')}: {entry.get('removed')} of {entry.get('considered')} removed"
        lines.append(f"{line} ({reasons})" if reasons else line)
    return lines
