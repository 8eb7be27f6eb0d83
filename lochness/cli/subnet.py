"""lochness subnet: IP networks with the range of addresses that guests may get."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, Words, new_record
from lochness.cli.command import command, noun
from lochness.cli.output import Column, Format, plain, print_list, print_records
from lochness.cli.session import Kind, Session, name_of

app = noun("subnet", "Subnets: IP networks with a range of addresses for guests.")


def columns(network_names: dict[str, str]) -> list[Column]:
    """The columns of `subnet list`."""
    return [
        Column("NAME", lambda subnet: name_of(subnet) or "-"),
        Column("ID", lambda subnet: plain(subnet.get("id"))),
        Column("CIDR", lambda subnet: plain(subnet.get("cidr"))),
        Column("START", lambda subnet: plain(subnet.get("start"))),
        Column("END", lambda subnet: plain(subnet.get("end"))),
        Column("GATEWAY", lambda subnet: plain(subnet.get("gateway"))),
        Column("NETWORK", lambda subnet: network_names.get(str(subnet.get("network")), plain(subnet.get("network")))),
    ]


@command(app, "list")
def list_subnets(session: Session) -> None:
    """List the subnets.

    Example: lochness subnet list
    """
    subnets = session.records(Kind.SUBNET)
    names = session.names(Kind.NETWORK) if subnets and session.form is Format.TABLE else {}
    print_list(subnets, columns(names), session.form)


@command(app, "show")
def show(session: Session, ids: Words) -> None:
    """Show subnets with all their fields.

    Example: lochness subnet show lan-a
    """

    def show_one(word: str) -> None:
        print_records([session.client.record(session.path_of(Kind.SUBNET, word))], session.form)

    session.for_each(ids, show_one)


@command(app, "create")
def create(
    session: Session,
    cidr: Annotated[str, typer.Option("--cidr", help="The network, such as 10.0.0.0/24.", show_default=False)],
    start: Annotated[str, typer.Option("--start", help="The first address a guest may get.", show_default=False)],
    end: Annotated[str, typer.Option("--end", help="The last one.", show_default=False)],
    gateway: Annotated[
        str | None, typer.Option("--gateway", help="What guests route by; never given to one.", show_default=False)
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="ID|NAME", help="The network it is in.", show_default=False)
    ] = None,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make a subnet.

    Example: lochness subnet create --name lan-a --cidr 10.0.0.0/24 --start 10.0.0.10 --end 10.0.0.99 --network lan
    """
    record = new_record(
        id,
        name,
        metadata,
        network=session.id_of(Kind.NETWORK, network) if network else None,
        cidr=cidr,
        start=start,
        end=end,
        gateway=gateway,
    )
    print_records([session.client.create(Kind.SUBNET.path, record)], session.form)


@command(app, "delete")
def delete(session: Session, ids: Words) -> None:
    """Remove subnets. Refused while guests have addresses of one.

    Example: lochness subnet delete lan-a
    """

    def remove(word: str) -> None:
        print_records([session.client.delete(session.path_of(Kind.SUBNET, word))], session.form)

    session.for_each(ids, remove)
