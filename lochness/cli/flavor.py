"""lochness flavor: templates of virtual resources."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, new_record
from lochness.cli.collection import Specs, Targets, add_delete, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.output import Column, Format, megabytes, plain, print_list
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


add_show(app, Kind.FLAVOR, "flavor show small")


ImageOption = Annotated[str | None, typer.Option("--image", metavar="ID|NAME", show_default=False)]
MemoryOption = Annotated[int | None, typer.Option("--memory", metavar="MB", min=1, show_default=False)]


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    image: ImageOption = None,
    memory: MemoryOption = None,
    cpu: Annotated[int, typer.Option("--cpu", min=1)] = 1,
    disk: Annotated[int, typer.Option("--disk", metavar="MB", min=0)] = 0,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make a flavor.

    Example: lochness flavor create --name small --image debian12 --memory 1024 --disk 10240 --cpu 1
    """
    given = new_record(id, name, metadata, image=image, memory=memory, disk=disk, cpu=cpu)
    create_each(session, Kind.FLAVOR, specs, given, needs=("image", "memory"))


@command(app, "modify")
def modify(
    session: Session,
    flavors: Targets,
    image: ImageOption = None,
    memory: MemoryOption = None,
    cpu: Annotated[int | None, typer.Option("--cpu", min=1, show_default=False)] = None,
    disk: Annotated[int | None, typer.Option("--disk", metavar="MB", min=0, show_default=False)] = None,
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Change flavors for guests to come. Guests that have one keep what they hold.

    Example: lochness flavor modify small --memory 2048
    """
    modify_each(session, Kind.FLAVOR, flavors, name, metadata, image=image, memory=memory, cpu=cpu, disk=disk)


add_delete(app, Kind.FLAVOR, "Remove flavors. Guests that have one keep what they hold.", "flavor delete small")
