"""lochness image: what guests' disks start from, and how they boot."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, Words, new_record
from lochness.cli.command import command, noun
from lochness.cli.output import Column, plain, print_list, print_records
from lochness.cli.session import Kind, Session, name_of

app = noun("image", "Images: what guests' disks start from.")

Text = Annotated[str | None, typer.Option(show_default=False)]

COLUMNS = [
    Column("NAME", lambda image: name_of(image) or "-"),
    Column("ID", lambda image: plain(image.get("id"))),
    Column("FORMAT", lambda image: plain(image.get("format"))),
    Column("BOOTS", lambda image: "kernel" if image.get("kernel") else "disk"),
    Column("SOURCE", lambda image: plain(image.get("source"))),
]


@command(app, "list")
def list_images(session: Session) -> None:
    """List the images.

    Example: lochness image list
    """
    print_list(session.records(Kind.IMAGE), COLUMNS, session.form)


@command(app, "show")
def show(session: Session, ids: Words) -> None:
    """Show images with all their fields.

    Example: lochness image show debian12
    """

    def show_one(word: str) -> None:
        print_records([session.client.record(session.path_of(Kind.IMAGE, word))], session.form)

    session.for_each(ids, show_one)


@command(app, "create")
def create(
    session: Session,
    source: Annotated[str, typer.Option("--source", help="URL: http, https or file.", show_default=False)],
    sha256: Annotated[str | None, typer.Option("--sha256", help="Its checksum.", show_default=False)] = None,
    format: Annotated[str | None, typer.Option("--format", help="qcow2 or raw.", show_default=False)] = None,
    kernel: Annotated[
        str | None, typer.Option("--kernel", help="URL of a kernel to boot directly.", show_default=False)
    ] = None,
    kernel_sha256: Text = None,
    initrd: Text = None,
    initrd_sha256: Text = None,
    cmdline: Text = None,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make an image known; hypervisors fetch it when a guest needs it.

    Example: lochness image create --name debian12 --source https://images.example/debian12.qcow2 --sha256 9f86d0...
    """
    record = new_record(
        id,
        name,
        metadata,
        source=source,
        sha256=sha256,
        format=format,
        kernel=kernel,
        kernel_sha256=kernel_sha256,
        initrd=initrd,
        initrd_sha256=initrd_sha256,
        cmdline=cmdline,
    )
    print_records([session.client.create(Kind.IMAGE.path, record)], session.form)


@command(app, "delete")
def delete(session: Session, ids: Words) -> None:
    """Forget images. What hypervisors have of them stays there.

    Example: lochness image delete debian12
    """

    def remove(word: str) -> None:
        print_records([session.client.delete(session.path_of(Kind.IMAGE, word))], session.form)

    session.for_each(ids, remove)
