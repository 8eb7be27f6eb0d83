"""lochness hv: the hypervisors, their settings, subnets and guests."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness.cli.arguments import IdOption, MetadataOption, NameOption, Pairs, Word, Words, new_record, pairs
from lochness.cli.collection import Specs, Targets, add_delete, add_show, create_each, modify_each
from lochness.cli.command import command, noun
from lochness.cli.output import Column, Format, megabytes, plain, print_list, print_mapping, print_strings
from lochness.cli.session import Kind, Session, name_of

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

app = noun("hv", "Hypervisors: the physical machines.")

AddressOption = Annotated[str | None, typer.Option("--ip", help="Its address.", show_default=False)]
NetmaskOption = Annotated[str | None, typer.Option("--netmask", show_default=False)]
GatewayOption = Annotated[str | None, typer.Option("--gateway", show_default=False)]
MacOption = Annotated[str | None, typer.Option("--mac", show_default=False)]


CORDONED: Final = "cordoned"
"""The setting that keeps new guests away; its value is the reason."""


def usage_text(hypervisor: JSONObject, resource: str) -> str:
    """Used of total; memory and disk, which come in MB, in the unit that reads best."""
    total, available = (_amount(hypervisor, part, resource) for part in ("total_resources", "available_resources"))
    used = max(0, total - available)
    return f"{used}/{total}" if resource == "cpu" else f"{megabytes(used)}/{megabytes(total)}"


def _amount(hypervisor: JSONObject, part: str, resource: str) -> int:
    resources = hypervisor.get(part)
    amount = resources.get(resource) if isinstance(resources, dict) else None
    return amount if isinstance(amount, int) else 0


def alive_text(hypervisor: JSONObject) -> str:
    """Whether it beats, and whether new guests are kept away."""
    return plain(hypervisor.get("alive")) + (", cordoned" if hypervisor.get("cordoned") else "")


def columns(guests_on: Counter[str]) -> list[Column]:
    """The columns of `hv list`; `guests_on` counts guests by hypervisor."""
    return [
        Column("NAME", lambda hv: name_of(hv) or "-"),
        Column("ID", lambda hv: plain(hv.get("id"))),
        Column("ALIVE", alive_text),
        Column("MEMORY", lambda hv: usage_text(hv, "memory"), is_number=True),
        Column("DISK", lambda hv: usage_text(hv, "disk"), is_number=True),
        Column("CPU", lambda hv: usage_text(hv, "cpu"), is_number=True),
        Column("GUESTS", lambda hv: str(guests_on[str(hv.get("id"))]), is_number=True),
        Column("ADDRESS", lambda hv: plain(hv.get("ip"))),
    ]


@command(app, "list")
def list_hypervisors(session: Session) -> None:
    """List the hypervisors: alive or not, memory, disk and CPUs used of those there are, guests.

    Example: lochness hv list
    """
    hypervisors = session.records(Kind.HYPERVISOR)
    guests = session.records(Kind.GUEST) if session.form is Format.TABLE else []
    print_list(hypervisors, columns(Counter(str(guest.get("hypervisor")) for guest in guests)), session.form)


add_show(app, Kind.HYPERVISOR, "hv show rack1-a")


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    id: IdOption = "",
    name: NameOption = None,
    ip: AddressOption = None,
    netmask: NetmaskOption = None,
    gateway: GatewayOption = None,
    mac: MacOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Register a hypervisor. Its daemons must run under the same id.

    Example: lochness hv create --id e88a75a6-7ae6-487c-9634-6553d3793437 --name rack1-a --ip 10.0.0.11
    """
    given = new_record(id, name, metadata, ip=ip, netmask=netmask, gateway=gateway, mac=mac)
    create_each(session, Kind.HYPERVISOR, specs, given)


@command(app, "modify")
def modify(
    session: Session,
    hypervisors: Targets,
    name: NameOption = None,
    ip: AddressOption = None,
    netmask: NetmaskOption = None,
    gateway: GatewayOption = None,
    mac: MacOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Change fields of hypervisors; metadata that is not named stays, KEY= removes one.

    Example: lochness hv modify rack1-a --ip 10.0.0.12 --metadata rack=1
    """
    given = {"ip": ip, "netmask": netmask, "gateway": gateway, "mac": mac}
    modify_each(session, Kind.HYPERVISOR, hypervisors, name, metadata, **given)


add_delete(app, Kind.HYPERVISOR, "Remove hypervisors. Refused while guests are on one.", "hv delete rack1-a")


@command(app, "config")
def config(session: Session, hypervisor: Word, settings: Pairs = None) -> None:
    """Show a hypervisor's settings, or change those given; KEY= removes one.

    Example: lochness hv config rack1-a agentUrl=http://10.0.0.11:8080
    """
    path = session.path_of(Kind.HYPERVISOR, hypervisor)
    changes = pairs(settings, what="setting") or None
    print_mapping(session.client.settings(f"{path}/config", changes), ("KEY", "VALUE"), session.form)


@command(app, "subnets")
def subnets(
    session: Session,
    hypervisor: Word,
    bridges: Annotated[list[str] | None, typer.Argument(metavar="SUBNET=BRIDGE...", show_default=False)] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="SUBNET", show_default=False)] = None,
) -> None:
    """Show which bridge each subnet is mapped to on a hypervisor, or map subnets, or take mappings away.

    Example: lochness hv subnets rack1-a lan-a=br0
    """
    path = f"{session.path_of(Kind.HYPERVISOR, hypervisor)}/subnets"
    changes = {session.id_of(Kind.SUBNET, word): bridge for word, bridge in pairs(bridges, what="mapping").items()}
    mapping = session.client.settings(path, changes or None)
    for word in remove or ():
        mapping = session.client.remaining(f"{path}/{session.id_of(Kind.SUBNET, word)}")
    print_mapping(mapping, ("SUBNET", "BRIDGE"), session.form)


@command(app, "guests")
def guests(session: Session, hypervisor: Word) -> None:
    """List the ids of the guests on a hypervisor.

    Example: lochness hv guests rack1-a
    """
    path = f"{session.path_of(Kind.HYPERVISOR, hypervisor)}/guests"
    print_strings(session.client.strings(path), session.form)


@command(app, "cordon")
def cordon(
    session: Session,
    ids: Words,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Told to who asks why.")] = "by an operator",
) -> None:
    """Give hypervisors no new guests. Those on them stay and run.

    Example: lochness hv cordon rack1-a --reason "memory to be replaced"
    """
    _set_cordon(session, ids, reason)


@command(app, "uncordon")
def uncordon(session: Session, ids: Words) -> None:
    """Let hypervisors have new guests again.

    Example: lochness hv uncordon rack1-a
    """
    _set_cordon(session, ids, "")


def _set_cordon(session: Session, words: list[str], reason: str) -> None:
    def change(word: str) -> None:
        path = session.path_of(Kind.HYPERVISOR, word)
        session.client.settings(f"{path}/config", {CORDONED: reason})
        print_strings([path.rpartition("/")[2]], session.form)

    session.for_each(words, change)
