"""lochness hv: the hypervisors, their settings, subnets and guests."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from lochness.cli.arguments import (
    IdOption,
    MetadataOption,
    NameOption,
    Pairs,
    Word,
    Words,
    metadata_of,
    new_record,
    pairs,
)
from lochness.cli.command import command, noun
from lochness.cli.output import (
    Column,
    Format,
    megabytes,
    plain,
    print_list,
    print_mapping,
    print_records,
    print_strings,
)
from lochness.cli.session import Kind, Session, name_of
from lochness.model.record import JSONObject

app = noun("hv", "Hypervisors: the physical machines.")

AddressOption = Annotated[str | None, typer.Option("--ip", help="Its address.", show_default=False)]
NetmaskOption = Annotated[str | None, typer.Option("--netmask", show_default=False)]
GatewayOption = Annotated[str | None, typer.Option("--gateway", show_default=False)]
MacOption = Annotated[str | None, typer.Option("--mac", show_default=False)]


def usage_text(hypervisor: JSONObject, resource: str) -> str:
    """Used of total; memory and disk, which come in MB, in the unit that reads best."""
    total, available = (_amount(hypervisor, part, resource) for part in ("total_resources", "available_resources"))
    used = max(0, total - available)
    return f"{used}/{total}" if resource == "cpu" else f"{megabytes(used)}/{megabytes(total)}"


def _amount(hypervisor: JSONObject, part: str, resource: str) -> int:
    resources = hypervisor.get(part)
    amount = resources.get(resource) if isinstance(resources, dict) else None
    return amount if isinstance(amount, int) else 0


def columns(guests_on: Counter[str]) -> list[Column]:
    """The columns of `hv list`; `guests_on` counts guests by hypervisor."""
    return [
        Column("NAME", lambda hv: name_of(hv) or "-"),
        Column("ID", lambda hv: plain(hv.get("id"))),
        Column("ALIVE", lambda hv: plain(hv.get("alive"))),
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


@command(app, "show")
def show(session: Session, ids: Words) -> None:
    """Show hypervisors with all their fields.

    Example: lochness hv show rack1-a
    """
    session.for_each(ids, lambda word: print_records([_get(session, word)], session.form))


def _get(session: Session, word: str) -> JSONObject:
    return session.client.record(session.path_of(Kind.HYPERVISOR, word))


@command(app, "create")
def create(
    session: Session,
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
    record = new_record(id, name, metadata, ip=ip, netmask=netmask, gateway=gateway, mac=mac)
    print_records([session.client.create(Kind.HYPERVISOR.path, record)], session.form)


@command(app, "modify")
def modify(
    session: Session,
    hypervisor: Word,
    name: NameOption = None,
    ip: AddressOption = None,
    netmask: NetmaskOption = None,
    gateway: GatewayOption = None,
    mac: MacOption = None,
    metadata: MetadataOption = None,
) -> None:
    """Change fields of a hypervisor; metadata that is not named stays, KEY= removes one.

    Example: lochness hv modify rack1-a --ip 10.0.0.12 --metadata rack=1
    """
    path = session.path_of(Kind.HYPERVISOR, hypervisor)
    given = {"ip": ip, "netmask": netmask, "gateway": gateway, "mac": mac}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if changed := metadata_of(name, metadata):
        merged = {**session.client.record(path).get("metadata", {}), **changed}
        changes["metadata"] = {key: value for key, value in merged.items() if value}
    print_records([session.client.modify(path, changes)], session.form)


@command(app, "delete")
def delete(session: Session, ids: Words) -> None:
    """Remove hypervisors. Refused while guests are on one.

    Example: lochness hv delete rack1-a
    """

    def remove(word: str) -> None:
        print_records([session.client.delete(session.path_of(Kind.HYPERVISOR, word))], session.form)

    session.for_each(ids, remove)


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

    Example: lochness hv subnets rack1-a lan=br0
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
