"""lochness vlan: the tags that networks on the wire are told apart by."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import DescriptionOption, Word
from lochness.cli.collection import Specs, Targets, add_delete, add_list, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.output import Column, plain, print_strings
from lochness.cli.session import Kind, Session

app = noun("vlan", "VLANs: the tags.")

COLUMNS = [
    Column("TAG", lambda vlan: plain(vlan.get("tag")), is_number=True),
    Column("DESCRIPTION", lambda vlan: plain(vlan.get("description"))),
]

add_list(app, Kind.VLAN, COLUMNS)
add_show(
    app,
    Kind.VLAN,
    "vlan show 100",
    lambda session, path: {"groups": session.client.strings(f"{path}/groups")},
    text=" and the ids of their groups",
)


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    tag: Annotated[int | None, typer.Option("--tag", min=1, max=4095, show_default=False)] = None,
    description: DescriptionOption = None,
) -> None:
    """Make a VLAN known.

    Example: lochness vlan create --tag 100 --description office
    """
    given = {name: value for name, value in (("tag", tag), ("description", description)) if value is not None}
    create_each(session, Kind.VLAN, specs, given, needs=("tag",))


@command(app, "modify")
def modify(session: Session, vlans: Targets, description: DescriptionOption = None) -> None:
    """Change the description of VLANs.

    Example: lochness vlan modify 100 --description office
    """
    modify_each(session, Kind.VLAN, vlans, None, None, description=description)


@command(app, "groups")
def groups(
    session: Session,
    vlan: Word,
    set_to: Annotated[
        str | None,
        typer.Option("--set", metavar="ID|NAME,...", help="Be in exactly these; '' for none.", show_default=False),
    ] = None,
) -> None:
    """Print the ids of a VLAN's groups, or put it into others.

    Example: lochness vlan groups 100 --set office
    """
    path = f"{session.path_of(Kind.VLAN, vlan)}/groups"
    if set_to is None:
        print_strings(session.client.strings(path), session.form)
        return
    ids = [session.id_of(Kind.VLANGROUP, word.strip()) for word in set_to.split(",") if word.strip()]
    print_strings(session.client.set_list(path, ids), session.form)


add_delete(app, Kind.VLAN, "Forget VLANs; they leave their groups.", "vlan delete 100")
