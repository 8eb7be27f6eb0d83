"""lochness vlangroup: sets of VLAN tags that a guest's interface gets as one."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import DescriptionOption, IdOption, MetadataOption, NameOption, Word, new_record
from lochness.cli.collection import Specs, Targets, add_delete, add_list, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.output import Column, plain, print_strings
from lochness.cli.session import Kind, Session, name_of

app = noun("vlangroup", "VLAN groups: sets of tags that a guest gets as one.")

COLUMNS = [
    Column("NAME", lambda group: name_of(group) or "-"),
    Column("ID", lambda group: plain(group.get("id"))),
    Column("DESCRIPTION", lambda group: plain(group.get("description"))),
]

add_list(app, Kind.VLANGROUP, COLUMNS)
add_show(
    app,
    Kind.VLANGROUP,
    "vlangroup show office",
    lambda session, path: {"tags": session.client.strings(f"{path}/tags")},
    text=" and their tags",
)


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    description: DescriptionOption = None,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make a VLAN group.

    Example: lochness vlangroup create --name office
    """
    create_each(session, Kind.VLANGROUP, specs, new_record(id, name, metadata, description=description))


@command(app, "modify")
def modify(
    session: Session,
    vlangroups: Targets,
    description: DescriptionOption = None,
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Change fields of VLAN groups; metadata that is not named stays.

    Example: lochness vlangroup modify office --description "Offices, first floor"
    """
    modify_each(session, Kind.VLANGROUP, vlangroups, name, metadata, description=description)


@command(app, "tags")
def tags(
    session: Session,
    vlangroup: Word,
    set_to: Annotated[
        str | None,
        typer.Option("--set", metavar="TAG,...", help="Have exactly these; '' for none.", show_default=False),
    ] = None,
) -> None:
    """Print the tags of a VLAN group, or give it others.

    Example: lochness vlangroup tags office --set 100
    """
    path = f"{session.path_of(Kind.VLANGROUP, vlangroup)}/tags"
    if set_to is None:
        print_strings(session.client.strings(path), session.form)
        return
    wanted = [int(session.id_of(Kind.VLAN, word.strip())) for word in set_to.split(",") if word.strip()]
    print_strings(session.client.set_list(path, wanted), session.form)


add_delete(app, Kind.VLANGROUP, "Remove VLAN groups; their tags stay.", "vlangroup delete office")
