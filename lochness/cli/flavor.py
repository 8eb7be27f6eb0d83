"""lochness flavor: templates of virtual resources."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, Words, new_record
from lochness.cli.command import command, noun
from lochness.cli.output import Column, Format, megabytes, plain, print_list, print_records
from lochness.cli.session import Kind, Session, name_of
from lochness.model.record import JSONObject

app = noun("flavor", "Flavors: image, memory, disk and CPUs of a guest.")


def _size(field: str, flavor: JSONObject) -> str:
    value = flavor.get(field)
    return megabytes(value) if isinstance(value, int) else plain(value)


def columns(image_names: dict[str, str]) -> list[Column]:
    """The columns of `flavor list`."""
    return [
        Column("NAME", lambda flavor: name_of(flavor) or "-"),
        Column("ID", lambda flavor: plain(flavor.get("id"))),
        Column("MEMORY", lambda flavor: _size("memory", flavor), is_number=True),
        Column("DISK", lambda flavor: _size("disk", flavor), is_number=True),
        Column("CPU", lambda flavor: plain(flavor.get("cpu")), is_number=True),
        Column("IMAGE", lambda flavor: image_names.get(str(flavor.get("image")), plain(flavor.get("image")))),
    ]


@command(app, "list")
def list_flavors(session: Session) -> None:
    """List the flavors.

    Example: lochness flavor list
    """
    flavors = session.records(Kind.FLAVOR)
    names = session.names(Kind.IMAGE) if flavors and session.form is Format.TABLE else {}
    print_list(flavors, columns(names), session.form)


@command(app, "show")
def show(session: Session, ids: Words) -> None:
    """Show flavors with all their fields.

    Example: lochness flavor show small
    """

    def show_one(word: str) -> None:
        print_records([session.client.record(session.path_of(Kind.FLAVOR, word))], session.form)

    session.for_each(ids, show_one)


@command(app, "create")
def create(
    session: Session,
    image: Annotated[str, typer.Option("--image", metavar="ID|NAME", show_default=False)],
    memory: Annotated[int, typer.Option("--memory", metavar="MB", min=1, show_default=False)],
    cpu: Annotated[int, typer.Option("--cpu", min=1)] = 1,
    disk: Annotated[int, typer.Option("--disk", metavar="MB", min=0)] = 0,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make a flavor.

    Example: lochness flavor create --name small --image debian12 --memory 1024 --disk 10240 --cpu 1
    """
    record = new_record(id, name, metadata, image=session.id_of(Kind.IMAGE, image), memory=memory, disk=disk, cpu=cpu)
    print_records([session.client.create(Kind.FLAVOR.path, record)], session.form)


@command(app, "delete")
def delete(session: Session, ids: Words) -> None:
    """Remove flavors. Guests that have one keep what they hold.

    Example: lochness flavor delete small
    """

    def remove(word: str) -> None:
        print_records([session.client.delete(session.path_of(Kind.FLAVOR, word))], session.form)

    session.for_each(ids, remove)
