"""lochness capacity: how many more guests fit, and what runs out first?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness.cli.output import Column, Format, plain, print_lines, print_list, print_records
from lochness.cli.session import Kind, Session

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

PATH: Final = "/capacity"

ROOM_COLUMNS = [
    Column("HYPERVISOR", lambda room: str(room.get("name") or room.get("hypervisor"))),
    Column("GUESTS", lambda room: plain(room.get("guests")), is_number=True),
    Column("LIMITED BY", lambda room: plain(room.get("limited_by"))),
]


def columns(flavor_names: dict[str, str]) -> list[Column]:
    """The columns of the table of flavors."""
    return [
        Column("FLAVOR", lambda entry: flavor_names.get(str(entry.get("flavor")), plain(entry.get("flavor")))),
        Column("GUESTS", lambda entry: plain(entry.get("guests")), is_number=True),
        Column("LIMITED BY", lambda entry: plain(entry.get("limited_by"))),
        Column("ADDRESSES", lambda entry: plain(entry.get("free_addresses")), is_number=True),
        Column("REFUSED", refused_text),
    ]


def refused_text(entry: JSONObject) -> str:
    """The hypervisors that take none, by reason."""
    refused = entry.get("refused")
    return ", ".join(f"{count} {reason}" for reason, count in refused.items()) if isinstance(refused, dict) else "-"


def capacity(
    session: Session,
    flavor: Annotated[
        str | None,
        typer.Option("--flavor", metavar="ID|NAME", help="Only of it, and by hypervisor.", show_default=False),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="ID|NAME", help="Where it needs an address; else any.", show_default=False),
    ] = None,
) -> None:
    """Say how many more guests of each flavor fit, and what runs out first.

    Example: lochness capacity --flavor small --network lan
    """
    network_id = session.id_of(Kind.NETWORK, network) if network else None
    if flavor is None:
        entries = session.client.records(PATH, network=network_id)
        names = session.names(Kind.FLAVOR) if entries and session.form is Format.TABLE else {}
        with_ids = [{"id": entry.get("flavor"), **entry} for entry in entries]
        print_list(entries if session.form is Format.JSON else with_ids, columns(names), session.form)
        return
    entry = session.client.record(PATH, flavor=session.id_of(Kind.FLAVOR, flavor), network=network_id)
    rooms = [room for room in entry.get("hypervisors") or () if isinstance(room, dict)]
    if session.form is Format.JSON:
        print_records([entry], session.form)
    elif session.form is Format.ID:
        print_records([{"id": room.get("hypervisor")} for room in rooms if room.get("guests")], session.form)
    else:
        head = f"{entry.get('guests')} more fit; {entry.get('limited_by')} runs out first"
        refused = refused_text(entry)
        print_lines([f"{head}; no room on: {refused}" if refused not in ("", "-") else head, ""])
        print_list(rooms, ROOM_COLUMNS, session.form)
