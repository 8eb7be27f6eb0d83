"""lochness image: what guests' disks start from, and how they boot."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, new_record
from lochness.cli.collection import Specs, Targets, add_delete, add_list, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.output import Column, plain
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


SourceOption = Annotated[str | None, typer.Option("--source", help="URL: http, https or file.", show_default=False)]
Sha256Option = Annotated[str | None, typer.Option("--sha256", help="Its checksum.", show_default=False)]
FormatOption = Annotated[str | None, typer.Option("--format", help="qcow2 or raw.", show_default=False)]
SizeOption = Annotated[
    int | None, typer.Option("--size", metavar="BYTES", min=0, help="To be checked.", show_default=False)
]
KernelOption = Annotated[
    str | None, typer.Option("--kernel", help="URL of a kernel to boot directly.", show_default=False)
]

add_list(app, Kind.IMAGE, COLUMNS)
add_show(app, Kind.IMAGE, "image show debian12")


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    source: SourceOption = None,
    sha256: Sha256Option = None,
    format: FormatOption = None,
    size: SizeOption = None,
    kernel: KernelOption = None,
    kernel_sha256: Text = None,
    initrd: Text = None,
    initrd_sha256: Text = None,
    cmdline: Text = None,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make an image known; hypervisors fetch it when a guest needs it.

    Example: lochness image create --name debian12 --source https://images.example/debian12.qcow2
    """
    given = new_record(
        id,
        name,
        metadata,
        source=source,
        sha256=sha256,
        format=format,
        size=size,
        kernel=kernel,
        kernel_sha256=kernel_sha256,
        initrd=initrd,
        initrd_sha256=initrd_sha256,
        cmdline=cmdline,
    )
    create_each(session, Kind.IMAGE, specs, given, needs=("source",))


@command(app, "modify")
def modify(
    session: Session,
    images: Targets,
    source: SourceOption = None,
    sha256: Sha256Option = None,
    format: FormatOption = None,
    size: SizeOption = None,
    kernel: KernelOption = None,
    kernel_sha256: Text = None,
    initrd: Text = None,
    initrd_sha256: Text = None,
    cmdline: Text = None,
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Change images. A hypervisor that has one already keeps its files: for other files make another image.

    Example: lochness image modify debian12 --source https://mirror.example/debian12.qcow2
    """
    modify_each(
        session,
        Kind.IMAGE,
        images,
        name,
        metadata,
        source=source,
        sha256=sha256,
        format=format,
        size=size,
        kernel=kernel,
        kernel_sha256=kernel_sha256,
        initrd=initrd,
        initrd_sha256=initrd_sha256,
        cmdline=cmdline,
    )


add_delete(app, Kind.IMAGE, "Forget images. What hypervisors have of them stays there.", "image delete debian12")
