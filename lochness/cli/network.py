"""lochness network: logical collections of subnets, which guests ask for."""

from __future__ import annotations

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, Word, Words, new_record
from lochness.cli.command import command, noun
from lochness.cli.output import Column, plain, print_list, print_records, print_strings
from lochness.cli.session import Kind, Session, name_of

app = noun("network", "Networks: what guests ask for; each has subnets.")

COLUMNS = [
    Column("NAME", lambda network: name_of(network) or "-"),
    Column("ID", lambda network: plain(network.get("id"))),
]


@command(app, "list")
def list_networks(session: Session) -> None:
    """List the networks.

    Example: lochness network list
    """
    print_list(session.records(Kind.NETWORK), COLUMNS, session.form)


@command(app, "show")
def show(session: Session, ids: Words) -> None:
    """Show networks with all their fields and the ids of their subnets.

    Example: lochness network show lan
    """

    def show_one(word: str) -> None:
        path = session.path_of(Kind.NETWORK, word)
        network = session.client.record(path)
        print_records([{**network, "subnets": session.client.strings(f"{path}/subnets")}], session.form)

    session.for_each(ids, show_one)


@command(app, "create")
def create(session: Session, id: IdOption = "", name: NameOption = None, metadata: MetadataOption = None) -> None:
    """Make a network.

    Example: lochness network create --name lan
    """
    print_records([session.client.create(Kind.NETWORK.path, new_record(id, name, metadata))], session.form)


@command(app, "delete")
def delete(session: Session, ids: Words) -> None:
    """Remove networks. Refused while subnets are in one.

    Example: lochness network delete lan
    """

    def remove(word: str) -> None:
        print_records([session.client.delete(session.path_of(Kind.NETWORK, word))], session.form)

    session.for_each(ids, remove)


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
