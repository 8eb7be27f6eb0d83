"""lochness network: logical collections of subnets, which guests ask for."""

from __future__ import annotations

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, Word, Words, new_record
from lochness.cli.collection import Specs, Targets, add_delete, add_list, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.output import Column, plain, print_strings
from lochness.cli.session import Kind, Session, name_of

app = noun("network", "Networks: what guests ask for; each has subnets.")

COLUMNS = [
    Column("NAME", lambda network: name_of(network) or "-"),
    Column("ID", lambda network: plain(network.get("id"))),
]


add_list(app, Kind.NETWORK, COLUMNS)
add_show(
    app,
    Kind.NETWORK,
    "network show lan",
    lambda session, path: {"subnets": session.client.strings(f"{path}/subnets")},
    text=" and the ids of their subnets",
)


@command(app, "create")
def create(
    session: Session, specs: Specs = None, id: IdOption = "", name: NameOption = None, metadata: MetadataOption = None
) -> None:
    """Make a network.

    Example: lochness network create --name lan
    """
    create_each(session, Kind.NETWORK, specs, new_record(id, name, metadata))


@command(app, "modify")
def modify(session: Session, networks: Targets, name: NameOption = None, metadata: MetadataOption = None) -> None:
    """Change networks' metadata; what is not named stays, KEY= removes one.

    Example: lochness network modify lan --metadata owner=ops
    """
    modify_each(session, Kind.NETWORK, networks, name, metadata)


add_delete(app, Kind.NETWORK, "Remove networks. Refused while subnets are in one.", "network delete lan")


@command(app, "add-subnet")
def add_subnet(session: Session, network: Word, subnets: Words) -> None:
    """Put subnets into a network, and print the ids of all its subnets.

    Example: lochness network add-subnet lan lan-a
    """
    path = f"{session.path_of(Kind.NETWORK, network)}/subnets"
    session.for_each(subnets, lambda word: session.client.link(path, session.id_of(Kind.SUBNET, word)))
    if not session.failures:
        print_strings(session.client.strings(path), session.form)


@command(app, "remove-subnet")
def remove_subnet(session: Session, network: Word, subnets: Words) -> None:
    """Take subnets out of a network, and print the ids of those left.

    Example: lochness network remove-subnet lan lan-a
    """
    path = f"{session.path_of(Kind.NETWORK, network)}/subnets"
    session.for_each(subnets, lambda word: session.client.unlink(path, session.id_of(Kind.SUBNET, word)))
    if not session.failures:
        print_strings(session.client.strings(path), session.form)
