"""lochness subnet: IP networks with the range of addresses that guests may get."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, Word, new_record
from lochness.cli.collection import Specs, Targets, add_delete, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.output import Column, Format, plain, print_list, print_mapping
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


add_show(app, Kind.SUBNET, "subnet show lan-a")

CidrOption = Annotated[str | None, typer.Option("--cidr", help="The network, such as 10.0.0.0/24.", show_default=False)]
StartOption = Annotated[
    str | None, typer.Option("--start", help="The first address a guest may get.", show_default=False)
]
EndOption = Annotated[str | None, typer.Option("--end", help="The last one.", show_default=False)]
GatewayOption = Annotated[
    str | None, typer.Option("--gateway", help="What guests route by; never given to one.", show_default=False)
]
NetworkOption = Annotated[
    str | None, typer.Option("--network", metavar="ID|NAME", help="The network it is in.", show_default=False)
]


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    cidr: CidrOption = None,
    start: StartOption = None,
    end: EndOption = None,
    gateway: GatewayOption = None,
    network: NetworkOption = None,
    id: IdOption = "",
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Make a subnet.

    Example: lochness subnet create --name lan-a --cidr 10.0.0.0/24 --start 10.0.0.10 --end 10.0.0.99 --network lan
    """
    given = new_record(id, name, metadata, network=network, cidr=cidr, start=start, end=end, gateway=gateway)
    create_each(session, Kind.SUBNET, specs, given, needs=("cidr", "start", "end"))


@command(app, "modify")
def modify(
    session: Session,
    subnets: Targets,
    cidr: CidrOption = None,
    start: StartOption = None,
    end: EndOption = None,
    gateway: GatewayOption = None,
    network: NetworkOption = None,
    name: NameOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Change subnets. Guests keep the addresses that they have.

    Example: lochness subnet modify lan-a --end 10.0.0.199
    """
    given = {"cidr": cidr, "start": start, "end": end, "gateway": gateway, "network": network}
    modify_each(session, Kind.SUBNET, subnets, name, metadata, **given)


@command(app, "addresses")
def addresses(session: Session, subnet: Word) -> None:
    """Show which addresses are in use, and by which guest.

    Example: lochness subnet addresses lan-a
    """
    path = f"{session.path_of(Kind.SUBNET, subnet)}/addresses"
    print_mapping(session.client.settings(path), ("ADDRESS", "GUEST"), session.form)


add_delete(app, Kind.SUBNET, "Remove subnets. Refused while guests have addresses of one.", "subnet delete lan-a")
