"""lochness guest: the virtual machines and what can be done to them.

Everything but list and show is a job of the controller: the command ends when it is accepted, or with --wait when it is
done. What was accepted is printed with the job's id in the field "job".
"""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.arguments import (
    WAIT_LIMIT_S,
    IdOption,
    MetadataOption,
    NameOption,
    TimeoutOption,
    WaitOption,
    Words,
    new_record,
)
from lochness.cli.command import command, noun
from lochness.cli.follow import follow
from lochness.cli.output import Column, Format, plain, print_list, print_records
from lochness.cli.session import Kind, Session, name_of
from lochness.model.job import GUEST_ACTIONS
from lochness.model.record import JSONObject

app = noun("guest", "Guests: the virtual machines.")

Named = Annotated[str, typer.Option(metavar="ID|NAME", show_default=False)]
MaybeNamed = Annotated[str | None, typer.Option(metavar="ID|NAME", show_default=False)]


def state_of(guest: JSONObject) -> str:
    """What is seen of a guest; "unplaced" before it has a hypervisor."""
    status = guest.get("status")
    state = status.get("state") if isinstance(status, dict) else status
    if not isinstance(state, str) or state in ("", "unknown"):
        return "unknown" if guest.get("hypervisor") else "unplaced"
    return state


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


@command(app, "show")
def show(session: Session, ids: Words) -> None:
    """Show guests with all their fields.

    Example: lochness guest show web1
    """
    session.for_each(ids, lambda word: print_records([_get(session, word)], session.form))


def _get(session: Session, word: str) -> JSONObject:
    return session.client.record(session.path_of(Kind.GUEST, word))


@command(app, "create")
def create(
    session: Session,
    flavor: Named,
    network: Named,
    id: IdOption = "",
    name: NameOption = None,
    fwgroup: MaybeNamed = None,
    vlangroup: Annotated[str | None, typer.Option(metavar="ID", show_default=False)] = None,
    metadata: MetadataOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT_LIMIT_S,
) -> None:
    """Create a guest: a hypervisor is chosen, the image fetched there, and the guest started.

    Example: lochness guest create --name web1 --flavor small --network lan --wait
    """
    record = new_record(
        id,
        name,
        metadata,
        flavor=session.id_of(Kind.FLAVOR, flavor),
        network=session.id_of(Kind.NETWORK, network),
        fwgroup=session.id_of(Kind.FWGROUP, fwgroup) if fwgroup else None,
        vlangroup=vlangroup,
    )
    _request(session, "POST", [(name or "guest", Kind.GUEST.path)], record, limit_s=timeout if wait else None)


@command(app, "delete")
def delete(session: Session, ids: Words, wait: WaitOption = False, timeout: TimeoutOption = WAIT_LIMIT_S) -> None:
    """Delete guests with their disks and addresses, whatever state they are in.

    Example: lochness guest delete web1 --wait
    """
    _request(session, "DELETE", _paths(session, ids), limit_s=timeout if wait else None, is_gone=True)


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
        _request(session, "POST", _paths(session, ids, f"/{action}"), limit_s=timeout if wait else None)

    act.__doc__ = f"{_ACTION_HELP[action]}\n\n    Example: lochness guest {action} web1 --wait\n    "
    command(app, action)(act)


for _action in GUEST_ACTIONS:
    _add_action(_action)


def _paths(session: Session, words: list[str], suffix: str = "") -> list[tuple[str, str]]:
    """Each word with its path; what cannot be found is told, and left out."""
    found: list[tuple[str, str]] = []
    session.for_each(words, lambda word: found.append((word, session.path_of(Kind.GUEST, word) + suffix)))
    return found


def _request(
    session: Session,
    method: str,
    targets: list[tuple[str, str]],
    record: JSONObject | None = None,
    *,
    limit_s: float | None,
    is_gone: bool = False,
) -> None:
    """Send the request to each (name, path), then follow the jobs for up to `limit_s` seconds each, None: do not wait.

    Prints each guest as accepted, after a wait as it is then; one that `is_gone` by then as it was.
    """
    accepted: list[tuple[str, JSONObject, str]] = []

    def send(name: str, path: str) -> None:
        answer = session.client.accept(method, path, record)
        if limit_s is None:
            print_records([{**answer.guest, "job": answer.job}], session.form)
        accepted.append((name, answer.guest, answer.job))

    def finish(name: str, guest: JSONObject, job: str) -> None:
        follow(session, job, name, limit_s=limit_s or 0)
        if not is_gone:
            guest = session.client.record(f"{Kind.GUEST.path}/{guest.get('id')}")
        if session.form is not Format.TABLE or not is_gone:
            print_records([guest], session.form)

    for target in targets:
        session.attempt(send, *target)
    if limit_s is not None:
        for each in accepted:
            session.attempt(finish, *each)
