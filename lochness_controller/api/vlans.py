"""VLANs and VLAN groups: WIRE.md section 4, /vlans/tags and /vlans/groups.

Invariants:
1. A link between a tag and a group stands on both sides.
2. Setting a list, also one with duplicates, gives that set; whoever sets the same again changes nothing.
"""

from __future__ import annotations

from typing import Any

from litestar import Router, get, post
from litestar.params import FromPath, RawBody

from lochness.context import Context
from lochness.entities.vlan import VLAN, VLANGroup
from lochness.errors import ValidationError
from lochness.model.record import JSONObject
from lochness.model.vlan import VLANGroupRecord, VLANRecord, parse_tag
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.documents import answers, takes_list
from lochness_controller.api.given import GivenContext
from lochness_controller.api.preconditions import Precondition
from lochness_controller.api.records import Collection, change_and_save, collection_router, create_from, decoded, tell


def routers() -> list[Router]:
    """The routes of tags and groups."""
    return [
        collection_router(_TAGS, list_groups_of_tag, set_groups_of_tag),
        collection_router(_GROUPS, list_tags_of_group, set_tags_of_group),
    ]


@get("/{id:str}/groups", sync_to_thread=True, responses=answers(list[str], 200, 404))
def list_groups_of_tag(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """The ids of the groups that the VLAN is in."""
    return JSONLine(context.vlan(id).vlangroups())


@post(
    "/{id:str}/groups",
    sync_to_thread=True,
    status_code=200,
    responses=answers(list[str], 200, 404, 409),
    operation_class=takes_list("string"),
)
def set_groups_of_tag(context: GivenContext, id: FromPath[str], body: RawBody) -> JSONLine:
    """Put the VLAN into exactly these groups; answers their ids."""
    groups = decoded(body, list[str], "an array of VLAN group ids")
    vlan = context.vlan(id)
    vlan.set_vlangroups(groups)
    tell("groups set", vlan)
    return JSONLine(vlan.vlangroups())


@get("/{id:str}/tags", sync_to_thread=True, responses=answers(list[int], 200, 404))
def list_tags_of_group(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """The tags in the group."""
    return JSONLine(context.vlangroup(id).vlans())


@post(
    "/{id:str}/tags",
    sync_to_thread=True,
    status_code=200,
    responses=answers(list[int], 200, 404, 409),
    operation_class=takes_list("integer"),
)
def set_tags_of_group(context: GivenContext, id: FromPath[str], body: RawBody) -> JSONLine:
    """Put exactly these tags into the group; answers them."""
    tags = [parse_tag(tag) for tag in decoded(body, list[int], "an array of tags")]
    group = context.vlangroup(id)
    group.set_vlans(tags)
    tell("tags set", group)
    return JSONLine(group.vlans())


def _create_tag(context: Context, fields: JSONObject) -> VLAN:
    if "tag" not in fields:
        raise ValidationError("tag is required", field="tag")
    vlan: VLAN = create_from(context.new_vlan(), fields)
    return vlan


def _change_tag(vlan: VLAN, changes: JSONObject, precondition: Precondition) -> None:
    if changes.get("tag", vlan.tag) != vlan.tag:
        text = f"tag can not be changed: it is {vlan.tag}, got {changes['tag']!r}"
        raise ValidationError(text, field="tag")
    change_and_save(vlan, changes, precondition)


def _change_group(group: VLANGroup, changes: JSONObject, precondition: Precondition) -> None:
    """Change fields; metadata is merged, null takes a name out."""

    def merge() -> JSONObject:
        given = changes.get("metadata")
        if not isinstance(given, dict):
            return changes
        whole: JSONObject = {**group.metadata, **given}
        return {**changes, "metadata": {name: value for name, value in whole.items() if value is not None}}

    change_and_save(group, changes, precondition, merge)


def _destroy(entity: Any) -> None:
    entity.destroy()


_TAGS: Collection[Any] = Collection(
    path="/vlans/tags",
    record=VLANRecord,
    each=Context.vlans,
    fetch=Context.vlan,
    create=_create_tag,
    change=_change_tag,
    remove=_destroy,
    place_of=parse_tag,
)

_GROUPS: Collection[Any] = Collection(
    path="/vlans/groups",
    record=VLANGroupRecord,
    each=Context.vlangroups,
    fetch=Context.vlangroup,
    create=lambda context, fields: create_from(context.new_vlangroup(), fields),
    change=_change_group,
    remove=_destroy,
)
