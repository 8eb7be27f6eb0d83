"""Guests: WIRE.md section 3. What is asked of a guest becomes a job; the workers carry it out.

Invariants:
1. A guest, what it should be and the job that makes it so are written in one transaction.
2. Where a guest is (hypervisor, subnet, ip, bridge) is never taken from a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, RawBody

from lochness import keys
from lochness.clock import Clock
from lochness.context import Context
from lochness.errors import ConflictError, NotFoundError, ValidationError
from lochness.guest_state import ALIVE
from lochness.ids import parse_id
from lochness.model.address import guest_mac
from lochness.model.guest import GuestRecord, GuestStatus, Power, PowerRecord
from lochness.model.job import DELETE, GUEST_ACTIONS, SELECT_HYPERVISOR, JobRecord, rfc3339
from lochness.model.record import JSONObject
from lochness.store.protocol import Key
from lochness.transactions import create_guest, request_action
from lochness_controller.api.answers import JSONLine, accepted
from lochness_controller.api.documents import answers, listing, takes
from lochness_controller.api.edge import request_id_of
from lochness_controller.api.fresh_ids import fresh_id, is_taken_over
from lochness_controller.api.given import GivenClock, GivenContext, GivenMirror
from lochness_controller.api.lists import answer_list, parse_query
from lochness_controller.api.mirror import Mirror
from lochness_controller.api.noted import note
from lochness_controller.api.preconditions import Precondition, etag
from lochness_controller.api.records import (
    CHANGE_ATTEMPTS_MAX,
    AnyRequest,
    apply,
    field_names,
    given_id,
    known_fields,
    tell,
)
from lochness_controller.api.room import Room
from lochness_controller.api.shown import guest_fields
from lochness_controller.group_commit import GroupCommit

#: What a guest should be from now on when an action is asked for.
POWER_AFTER: Final[dict[str, Power]] = {
    "shutdown": "stopped",
    "poweroff": "stopped",
    "start": "running",
    "resume": "running",
    "reboot": "running",
    "restart": "running",
    "suspend": "paused",
    DELETE: "stopped",
}

_FIELDS: Final = field_names(GuestRecord) | {"power", "status"}
_PLACE: Final = ("hypervisor", "subnet", "ip", "bridge")


@dataclass(frozen=True, slots=True)
class Creating:
    """What a create needs, as one dependency: the framework makes a group of tasks for several, at 0.2 ms."""

    context: Context
    mirror: Mirror
    clock: Clock
    room: Room
    group: GroupCommit


def router() -> Router:
    """The routes."""
    return Router(
        path="/guests",
        route_handlers=[list_guests, create, show, change, remove, act],
    )


@get("/", sync_to_thread=True, responses=answers(list[GuestRecord]), operation_class=listing(_FIELDS))
def list_guests(mirror: GivenMirror, request: AnyRequest) -> JSONLine:
    """Every guest, or those that the query asks for."""
    query = parse_query(request.query_params.multi_items(), _FIELDS)
    if query.is_whole:
        return JSONLine(mirror.current().guests())
    return answer_list("/guests", query, mirror.current().each_guest())


@get("/{id:str}", sync_to_thread=True, responses=answers(GuestRecord, 200, 404))
def show(mirror: GivenMirror, id: FromPath[str]) -> JSONLine:
    """One guest."""
    shown, revision = _shown(mirror, parse_id(id))
    return JSONLine(shown, headers=etag(revision))


@post("/", responses=answers(GuestRecord, 202, 404, 409, 429), operation_class=takes(GuestRecord))
async def create(made: NamedDependency[Creating], request: AnyRequest, body: RawBody) -> JSONLine:
    """Create a guest: a job finds it a hypervisor, fetches its image there and starts it."""
    return accepted(*await create_of(made, body, request_id_of(request.scope)))


async def create_of(made: Creating, body: bytes, request_id: str) -> tuple[JSONObject | bytes, str]:
    """The guest of `body` as clients see it, and its job's id, once both are durable. Raises LochnessError."""
    fields = {name: value for name, value in known_fields(GuestRecord, body).items() if name not in _PLACE}
    fields["id"] = given_id(fields) or fresh_id("record")
    guest = GuestRecord.from_fields({"type": "kvm", **fields})
    guest.mac = guest.mac or guest_mac(guest.id)
    guest.validate()
    if is_taken_over() and (first := await sync_to_thread(_job_made_before, made.context)):
        return await sync_to_thread(_shown_or, made.mirror, guest), first
    made.room.require()
    job = _new_job(guest, SELECT_HYPERVISOR, "create", made.clock, request_id)
    try:
        await made.group.commit(create_guest(guest, job))
    except ConflictError as error:
        for name, key in (("flavor", keys.flavor(guest.flavor)), ("network", keys.network(guest.network))):
            if key in error.keys:
                raise NotFoundError(name, getattr(guest, name), field=name) from error
        raise ConflictError(f"guest {guest.id} exists already", keys=error.keys, reason="already_exists") from error
    note(action="created", kind="Guest", id=guest.id)
    return guest_fields(guest, PowerRecord(), GuestStatus(), ALIVE), job.id


@patch(
    "/{id:str}",
    sync_to_thread=True,
    responses=answers(GuestRecord, 200, 404, 409, 412),
    operation_class=takes(GuestRecord),
    has_revision=True,
)
def change(
    context: GivenContext, mirror: GivenMirror, request: AnyRequest, id: FromPath[str], body: RawBody
) -> JSONLine:
    """Change the fields in the body. A running guest takes them over when it is created anew."""
    changes, precondition = known_fields(GuestRecord, body), Precondition.of(request)
    guest = context.guest(id)
    for attempt in range(1, CHANGE_ATTEMPTS_MAX + 1):
        precondition.check(f"guest {guest.id}", guest.revision)
        before = guest.to_fields()
        apply(guest, changes)
        guest.validate()
        _refuse_moves(before, guest)
        _require(context, guest, *(name for name in ("flavor", "network") if name in changes))
        try:
            guest.save()
            break
        except ConflictError:
            if attempt == CHANGE_ATTEMPTS_MAX:
                raise
            guest.refresh()
    tell("changed", guest)
    shown, revision = _shown(mirror, guest.id)
    return JSONLine(shown, headers=etag(revision))


@delete(
    "/{id:str}",
    sync_to_thread=True,
    status_code=202,
    responses=answers(GuestRecord, 202, 404, 412, 429),
    has_revision=True,
)
def remove(
    context: GivenContext,
    mirror: GivenMirror,
    clock: GivenClock,
    room: NamedDependency[Room],
    request: AnyRequest,
    id: FromPath[str],
    force: FromQuery[bool] = False,
) -> JSONLine:
    """Delete a guest with its disks and its address, from any state. With `force` also where no agent confirms it:
    for a guest on a hypervisor that is dead for good."""
    room.require(is_delete=True)
    return _ask(context, mirror, clock, request, parse_id(id), DELETE, force=force)


@post(
    "/{id:str}/{action:str}",
    sync_to_thread=True,
    status_code=202,
    responses=answers(GuestRecord, 202, 404, 412, 429),
    has_revision=True,
)
def act(
    context: GivenContext,
    mirror: GivenMirror,
    clock: GivenClock,
    room: NamedDependency[Room],
    request: AnyRequest,
    id: FromPath[str],
    action: FromPath[str],
) -> JSONLine:
    """Ask for shutdown, reboot, restart, poweroff, start, suspend or resume."""
    if action not in GUEST_ACTIONS:
        raise NotFoundError("action", action, field="action")
    room.require()
    return _ask(context, mirror, clock, request, parse_id(id), action)


def _ask(
    context: Context,
    mirror: Mirror,
    clock: Clock,
    request: AnyRequest,
    guest_id: str,
    action: str,
    *,
    force: bool = False,
) -> JSONLine:
    """Write the job, and what the guest should be from now on, in one transaction."""
    attempts_left = CHANGE_ATTEMPTS_MAX
    if first := _job_made_before(context):
        return accepted(_shown_or(mirror, GuestRecord(id=guest_id)), first)
    while True:
        attempts_left -= 1
        guest = context.guest(guest_id)
        Precondition.of(request).check(f"guest {guest.id}", guest.revision)
        job = _new_job(guest, action, action, clock, request_id_of(request.scope))
        job.force = force
        try:
            request_action(guest.id, guest.revision, job, POWER_AFTER[action]).commit(context.store)
        except ConflictError:  # the guest's record has changed: it may have been placed, or be gone
            if not attempts_left:
                raise
        else:
            tell(f"{action} asked for", guest)
            return accepted(_shown_or(mirror, guest), job.id)


def _new_job(guest: GuestRecord, action: str, asked: str, clock: Clock, request_id: str) -> JobRecord:
    return JobRecord(
        id=fresh_id("job"),
        action=action,
        guest=guest.id,
        created_at=rfc3339(clock.now()),
        request=asked,
        hypervisor=guest.hypervisor,
        request_id=request_id,
    )


def _require(context: Context, guest: GuestRecord, *names: str) -> None:
    """Raise NotFoundError, naming the field, unless what the guest names exists."""
    key_of: dict[str, Callable[[str], str]] = {"flavor": keys.flavor, "network": keys.network}
    for name in names:
        id = getattr(guest, name)
        if context.store.read(Key(key_of[name](id))).one() is None:
            raise NotFoundError(name, id, field=name)


def _refuse_moves(before: JSONObject, guest: GuestRecord) -> None:
    """Raise unless the guest stays where it is."""
    for name in _PLACE:
        if getattr(guest, name) != before[name]:
            raise ValidationError(f"{name} is set by placement, it can not be changed", field=name)
    if guest.is_placed and guest.network != before["network"]:
        raise ConflictError(
            f"guest {guest.id} has the address {guest.ip} of network {before['network']}: "
            "its network can not be changed",
            reason="already_placed",
        )


def _shown(mirror: Mirror, guest_id: str) -> tuple[bytes, int]:
    """The guest with its power and its status, as of now, and its revision. Raises NotFoundError."""
    found = mirror.current().guest(guest_id)
    if found is None:
        raise NotFoundError("guest", guest_id)
    return found


def _job_made_before(context: Context) -> str | None:
    """The job of a request that comes again, if it was made the first time."""
    job_id = fresh_id("job")
    if not is_taken_over() or context.store.read(Key(keys.job(job_id))).one() is None:
        return None
    return job_id


def _shown_or(mirror: Mirror, guest: GuestRecord) -> bytes:
    """As `_shown`; the record in hand when it is gone already."""
    try:
        return _shown(mirror, guest.id)[0]
    except NotFoundError:
        return msgspec.json.encode(guest_fields(guest, PowerRecord(), GuestStatus(), ALIVE))
