"""Hypervisors: WIRE.md section 2."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, RawBody

from lochness import keys
from lochness.context import Context
from lochness.entities.hypervisor import Hypervisor
from lochness.errors import ConflictError, NotFoundError, ValidationError
from lochness.guest_state import HypervisorSeen
from lochness.ids import parse_id
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.record import JSONObject
from lochness.store.protocol import Delete, KeyExists
from lochness.transactions import Transaction
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.documents import answers, takes
from lochness_controller.api.given import GivenContext
from lochness_controller.api.preconditions import Precondition
from lochness_controller.api.records import Collection, change_and_save, collection_router, create_from, decoded, tell
from lochness_controller.api.shown import hypervisor_fields

_STRINGS: Final = "an object of strings"
#: What a cordon says without a reason, and how many characters it may say.
_CORDONED: Final = "cordoned by an operator"
_REASON_MAX: Final = 1000
_RESOURCES: Final = ("total_resources", "available_resources")


def router() -> Router:
    """The routes."""
    return collection_router(
        _HYPERVISORS, show_config, change_config, cordon, uncordon, list_subnets, map_subnets, unmap_subnet, list_guests
    )


@get("/{id:str}/config", sync_to_thread=True, responses=answers(dict[str, str], 200, 404))
def show_config(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """The hypervisor's settings."""
    return JSONLine(context.hypervisor(id).config)


@patch("/{id:str}/config", sync_to_thread=True, responses=answers(dict[str, str], 200, 404), operation_class=takes())
def change_config(context: GivenContext, id: FromPath[str], body: RawBody) -> JSONLine:
    """Set the settings in the body, "" unsets one; answers all."""
    changes = decoded(body, dict[str, str], _STRINGS)
    hypervisor = context.hypervisor(id)
    hypervisor.set_configs(changes)
    tell("config changed", hypervisor)
    return JSONLine(context.hypervisor(id).config)


@post(
    "/{id:str}/cordon",
    sync_to_thread=True,
    status_code=200,
    responses=answers(HypervisorRecord, 200, 404),
    operation_class=takes(),
)
def cordon(context: GivenContext, id: FromPath[str], body: RawBody) -> JSONLine:
    """No new guest comes here until `uncordon`; those that are here stay. `{"reason": "..."}` is told with refusals.

    Its setting "cordoned" is the reason. Once more replaces it.
    """
    reason = decoded(body, dict[str, str], _STRINGS).get("reason", "").strip() if body else ""
    if len(reason) > _REASON_MAX:
        raise ValidationError(f"reason has {len(reason)} characters, at most {_REASON_MAX} are kept", field="reason")
    return _set_cordon(context, id, reason or _CORDONED)


@post("/{id:str}/uncordon", sync_to_thread=True, status_code=200, responses=answers(HypervisorRecord, 200, 404))
def uncordon(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """New guests may come again; one that was not cordoned stays as it is."""
    return _set_cordon(context, id, "")


def _set_cordon(context: Context, id: str, reason: str) -> JSONLine:
    hypervisor = context.hypervisor(id)
    hypervisor.set_config(keys.CORDONED, reason)
    tell("cordoned" if reason else "uncordoned", hypervisor)
    return JSONLine(_shown(context.hypervisor(id)))


@get("/{id:str}/subnets", sync_to_thread=True, responses=answers(dict[str, str], 200, 404))
def list_subnets(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """The ids of its subnets, each with the bridge it is mapped to."""
    return JSONLine(context.hypervisor(id).subnets())


@patch("/{id:str}/subnets", sync_to_thread=True, responses=answers(dict[str, str], 200, 404), operation_class=takes())
def map_subnets(context: GivenContext, id: FromPath[str], body: RawBody) -> JSONLine:
    """Map the subnets in the body to their bridges; answers all mappings."""
    given = decoded(body, dict[str, str], _STRINGS)
    bridges = {parse_id(subnet, field="subnet"): bridge for subnet, bridge in given.items()}
    hypervisor = context.hypervisor(id)
    hypervisor.map_subnets(bridges)
    tell("subnets mapped", hypervisor)
    return JSONLine(hypervisor.subnets())


@delete(
    "/{id:str}/subnets/{subnet:str}",
    sync_to_thread=True,
    status_code=200,
    responses=answers(dict[str, str], 200, 404),
)
def unmap_subnet(context: GivenContext, id: FromPath[str], subnet: FromPath[str]) -> JSONLine:
    """Take a mapping away; answers those left."""
    subnet_id = parse_id(subnet, field="subnet")
    hypervisor = context.hypervisor(id)
    key = keys.hypervisor_subnet(hypervisor.id, subnet_id)
    try:
        Transaction((KeyExists(key),), (Delete(key),)).commit(context.store)
    except ConflictError as error:
        missing = NotFoundError("subnet", subnet_id, field="subnet")
        missing.message = f"subnet {subnet_id} is not mapped on hypervisor {hypervisor.id}"
        raise missing from error
    tell("subnet unmapped", hypervisor)
    return JSONLine(hypervisor.subnets())


@get("/{id:str}/guests", sync_to_thread=True, responses=answers(list[str], 200, 404))
def list_guests(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """The ids of the guests bound to it."""
    return JSONLine(context.hypervisor(id).guests())


def _change(hypervisor: Hypervisor, changes: JSONObject, precondition: Precondition) -> None:
    """Change fields; of resources, those that are named."""
    current = hypervisor.to_fields()
    for name in _RESOURCES:
        if isinstance(changes.get(name), dict):
            changes = {**changes, name: {**current[name], **changes[name]}}
    change_and_save(hypervisor, changes, precondition)


def _create(context: Context, fields: JSONObject) -> Hypervisor:
    hypervisor: Hypervisor = create_from(context.new_hypervisor(), fields)
    return hypervisor


def _remove(hypervisor: Hypervisor) -> None:
    hypervisor.destroy()


def _shown(hypervisor: Hypervisor) -> bytes:
    seen = HypervisorSeen(is_alive=hypervisor.is_alive())
    return msgspec.json.encode(hypervisor_fields(hypervisor, seen, hypervisor.config.get(keys.CORDONED, "")))


_HYPERVISORS: Collection[Any] = Collection(
    path="/hypervisors",
    record=HypervisorRecord,
    each=Context.hypervisors,
    fetch=Context.hypervisor,
    create=_create,
    change=_change,
    remove=_remove,
    shown=_shown,
    shown_all=lambda picture: picture.hypervisors(),
    shown_each=lambda picture: picture.each_hypervisor(),
    more_fields=("alive", "lost_since"),
    shown_one=lambda picture, id: picture.hypervisor(id),
)
