"""lochness guest: the virtual machines and what can be done to them.

Everything but list and show is a job of the controller: the command ends when it is accepted, or with --wait when it is
done. What was accepted is printed with the job's id in the field "job".
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness.cli.arguments import (
    WAIT_LIMIT_S,
    IdOption,
    MetadataOption,
    NameOption,
    TimeoutOption,
    WaitOption,
    Word,
    Words,
    new_record,
)
from lochness.cli.collection import Specs, Targets, add_show, modify_each, records_of, resolved
from lochness.cli.command import command, noun
from lochness.cli.guest_files import metadata_from_files
from lochness.cli.guest_requests import Request, carry_out
from lochness.cli.output import Column, Format, plain, print_list, print_records, print_strings, shown
from lochness.cli.session import Kind, Session, name_of
from lochness.errors import DeadlineError, LochnessError

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

app = noun("guest", "Guests: the virtual machines.")

MaybeNamed = Annotated[str | None, typer.Option(metavar="ID|NAME", show_default=False)]


_LOOK_EVERY_S: Final = 0.5


class NoAddressError(LochnessError):
    """A guest that was not placed yet."""

    reason = "no_address"


def state_of(guest: JSONObject) -> str:
    """What is seen of a guest; "unplaced" before it has a hypervisor, and again after its creation was undone."""
    if not guest.get("hypervisor"):
        return "unplaced"
    status = guest.get("status")
    state = status.get("state") if isinstance(status, dict) else status
    return state if isinstance(state, str) and state else "unknown"


def columns(hypervisor_names: dict[str, str], flavor_names: dict[str, str]) -> list[Column]:
    """The columns of `guest list`."""
    return [
        Column("NAME", lambda guest: name_of(guest) or "-"),
        Column("ID", lambda guest: plain(guest.get("id"))),
        Column("STATE", state_of),
        Column("HYPERVISOR", lambda guest: _named(hypervisor_names, guest.get("hypervisor"))),
        Column("IP", lambda guest: plain(guest.get("ip"))),
        Column("FLAVOR", lambda guest: _named(flavor_names, guest.get("flavor"))),
    ]


def _named(names: dict[str, str], id: object) -> str:
    return names.get(str(id), plain(id))


@command(app, "list")
def list_guests(
    session: Session,
    hypervisor: Annotated[
        str | None, typer.Option("--hypervisor", metavar="ID|NAME", help="Only those on it.", show_default=False)
    ] = None,
) -> None:
    """List the guests: state, hypervisor, address, flavor.

    Example: lochness guest list --hypervisor rack1-a
    """
    guests = session.records(Kind.GUEST)
    if hypervisor is not None:
        wanted = session.id_of(Kind.HYPERVISOR, hypervisor)
        guests = [guest for guest in guests if guest.get("hypervisor") == wanted]
    is_table = session.form is Format.TABLE and bool(guests)
    names = [session.names(kind) if is_table else {} for kind in (Kind.HYPERVISOR, Kind.FLAVOR)]
    print_list(guests, columns(*names), session.form)


add_show(app, Kind.GUEST, "guest show web1")


@command(app, "create")
def create(
    session: Session,
    specs: Specs = None,
    flavor: MaybeNamed = None,
    network: MaybeNamed = None,
    id: IdOption = "",
    name: NameOption = None,
    fwgroup: MaybeNamed = None,
    vlangroup: MaybeNamed = None,
    metadata: MetadataOption = None,
    ssh_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--ssh-key",
            metavar="FILE",
            help="Public keys that may log in as the image's user; several times if need be.",
            show_default=False,
        ),
    ] = None,
    user_data: Annotated[
        Path | None, typer.Option("--user-data", metavar="FILE", help="cloud-init's user data.", show_default=False)
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_LIMIT_S,
) -> None:
    """Create guests: a hypervisor is chosen, the image fetched there, and the guest started.

    Example: lochness guest create --name web1 --flavor small --network lan --wait
    """
    given = new_record(id, name, metadata, flavor=flavor, network=network, fwgroup=fwgroup, vlangroup=vlangroup)
    if ssh_key or user_data:
        given["metadata"] = {**metadata_from_files(ssh_key, user_data), **given.get("metadata", {})}
    records = records_of(Kind.GUEST, specs, given, needs=("flavor", "network"))
    requests: list[Request] = []

    def prepare(record: JSONObject) -> None:
        requests.append(Request(name_of(record) or "guest", Kind.GUEST.path, resolved(session, Kind.GUEST, record)))

    for record in records:
        session.attempt(prepare, record)
    carry_out(session, "POST", requests, limit_s=timeout if wait else None)


@command(app, "modify")
def modify(
    session: Session,
    guests: Targets,
    name: NameOption = None,
    flavor: MaybeNamed = None,
    fwgroup: MaybeNamed = None,
    vlangroup: MaybeNamed = None,
    metadata: MetadataOption = None,
) -> None:
    """Change guests' records; a running guest takes over what concerns it when it is created anew.

    Example: lochness guest modify web1 --metadata owner=ops
    """
    modify_each(session, Kind.GUEST, guests, name, metadata, flavor=flavor, fwgroup=fwgroup, vlangroup=vlangroup)


@command(app, "delete")
def delete(
    session: Session,
    ids: Words,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where no agent confirms it: its host is gone for good.", show_default=False),
    ] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_LIMIT_S,
) -> None:
    """Delete guests with their disks and addresses, whatever state they are in.

    Example: lochness guest delete web1 --wait
    """
    query = {"force": "true"} if force else {}
    carry_out(session, "DELETE", _requests(session, ids), limit_s=timeout if wait else None, is_gone=True, **query)


_ACTION_HELP = {
    "shutdown": "Ask guests to shut down, as by their power button.",
    "reboot": "Ask guests to reboot, as by their reset button pressed softly.",
    "restart": "Cut guests' power and start them again.",
    "poweroff": "Cut guests' power.",
    "start": "Start guests that are stopped.",
    "suspend": "Stop guests' processors; their memory stays.",
    "resume": "Let suspended guests go on.",
}


def _add_action(action: str) -> None:
    def act(session: Session, ids: Words, wait: WaitOption = False, timeout: TimeoutOption = WAIT_LIMIT_S) -> None:
        carry_out(session, "POST", _requests(session, ids, f"/{action}"), limit_s=timeout if wait else None)

    act.__doc__ = f"{_ACTION_HELP[action]}\n\n    Example: lochness guest {action} web1 --wait\n    "
    command(app, action)(act)


for _action in _ACTION_HELP:
    _add_action(_action)


def _requests(session: Session, words: list[str], suffix: str = "") -> list[Request]:
    """One for each word; what cannot be found is told, and left out."""
    found: list[Request] = []

    def find(word: str) -> None:
        found.append(Request(word, session.path_of(Kind.GUEST, word) + suffix))

    session.for_each(words, find)
    return found


@command(app, "wait")
def wait_for(
    session: Session,
    ids: Words,
    state: Annotated[str, typer.Option("--state", help="running, stopped, paused ...")] = "running",
    timeout: TimeoutOption = WAIT_LIMIT_S,
) -> None:
    """Wait until guests are seen in a state.

    Example: lochness guest wait web1 --state running --timeout 120
    """
    session.for_each(ids, lambda word: print_records([awaited(session, word, state, limit_s=timeout)], session.form))


def awaited(session: Session, word: str, state: str, *, limit_s: float) -> JSONObject:
    """The guest once its state is `state`. Raises DeadlineError after `limit_s` seconds, telling the last one seen."""
    path = session.path_of(Kind.GUEST, word)
    deadline_s = time.monotonic() + limit_s
    while True:
        guest = session.client.record(path)
        if state_of(guest) == state:
            return guest
        if time.monotonic() >= deadline_s:
            text = f"guest {word} is {state_of(guest)}, not {state}, after {limit_s:g} s"
            raise DeadlineError(text, limit_s=limit_s)
        time.sleep(max(0.0, min(_LOOK_EVERY_S, deadline_s - time.monotonic())))


@command(app, "address")
def address(session: Session, ids: Words) -> None:
    """Print the addresses of guests, one a line: ssh root@$(lochness guest address web1).

    Example: lochness guest address web1
    """

    def show_one(word: str) -> None:
        guest = session.client.record(session.path_of(Kind.GUEST, word))
        if not guest.get("ip"):
            raise NoAddressError(f"guest {word} has no address yet: it is {state_of(guest)}")
        if session.form is Format.TABLE:
            print_strings([str(guest["ip"])], session.form)
        else:
            print_records([{"id": guest.get("id"), "ip": guest["ip"]}], session.form)

    session.for_each(ids, show_one)


@command(app, "console")
def console(
    session: Session,
    guest: Word,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it writes, until Ctrl-C.", show_default=False)
    ] = False,
    limit_bytes: Annotated[
        int | None,
        typer.Option(
            "--bytes", metavar="N", min=1, max=1 << 20, help="So much of the end; 64 KiB without.", show_default=False
        ),
    ] = None,
) -> None:
    """Print what a guest has written to its serial console since its last start.

    What would control the terminal is printed as \\xNN; piped, everything is as the guest wrote it.

    Example: lochness guest console web1
    """
    id = session.id_of(Kind.GUEST, guest)
    text, end = session.client.console(id, limit_bytes=limit_bytes)
    write_console(text)
    while follow:
        time.sleep(_LOOK_EVERY_S)
        text, end = session.client.console(id, since=end)
        write_console(text)


def write_console(text: str) -> None:
    """A piece of a console, harmless where a person sees it."""
    if sys.stdout.isatty():
        lines = text.replace("\r\n", "\n").split("\n")
        text = "\n".join("\t".join(shown(part) for part in line.split("\t")) for line in lines)
    sys.stdout.write(text)
    sys.stdout.flush()
