"""Questions about placement that change nothing: POST /placement and GET /capacity.

Both are answered from one snapshot of the cluster, at least as new as the question, with the controller's own candidate
functions: the scheduler's, or the store's where that one is behind. What is true of the snapshot may have changed when
the guest is created.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter, RawBody

from lochness.context import Context
from lochness.errors import NotFoundError, ValidationError
from lochness.ids import new_id, parse_id
from lochness.model.guest import GuestRecord
from lochness.model.record import decode_object
from lochness.placement.candidates import CandidateFunction
from lochness.placement.capacity import Capacity, capacity
from lochness.placement.cluster import CLUSTER_SELECTORS, ClusterView, cluster_view
from lochness.placement.decide import Refused
from lochness.placement.explain import explain
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.documents import answers, takes
from lochness_controller.api.given import GivenContext
from lochness_controller.api.records import known_fields


@dataclass(frozen=True, slots=True)
class Policy:
    """How this controller places: its candidate functions in order, and the metadata that names failure domains."""

    functions: Sequence[CandidateFunction]
    domain: str = ""
    snapshot: Callable[[], tuple[int, ClusterView] | None] = lambda: None
    """The scheduler's picture of now with its revision; None when it has none, and the store is to be read."""


GivenPolicy: TypeAlias = NamedDependency[Policy]


class PlacementRequest(GuestRecord):
    """The fields of a guest, and `guest`, the id of one whose record is to be taken instead, or to start from."""

    guest: str = ""


def router() -> Router:
    """The routes."""
    return Router(path="/", route_handlers=[try_placement, show_capacity])


@post(
    "/placement",
    sync_to_thread=True,
    status_code=200,
    responses=answers(dict[str, Any], 200, 404),
    operation_class=takes(PlacementRequest),
)
def try_placement(context: GivenContext, policy: GivenPolicy, body: RawBody) -> JSONLine:
    """Where would this guest go, and why not elsewhere? Nothing is changed."""
    guest = _guest_in(context, body)
    revision, view = _view(context, policy)
    explanation = explain(view, guest, policy.functions, domain=policy.domain)
    return JSONLine({"guest": guest.id, "revision": revision, **explanation.to_fields()})


@get("/capacity", sync_to_thread=True, responses=answers(dict[str, Any], 200, 404))
def show_capacity(
    context: GivenContext,
    policy: GivenPolicy,
    flavor: Annotated[FromQuery[str], QueryParameter(description="A flavor's id; without it, all flavors.")] = "",
    network: Annotated[FromQuery[str], QueryParameter(description="A network's id; without it, any.")] = "",
) -> JSONLine:
    """How many more guests of a flavor fit, and what runs out first? Without a flavor: an array, one entry for each."""
    network = parse_id(network, field="network") if network else ""
    wanted = parse_id(flavor, field="flavor") if flavor else ""
    revision, view = _view(context, policy)
    if wanted:
        return JSONLine({"revision": revision, **_capacity(view, wanted, network, policy).to_fields()})
    found = [_capacity(view, id, network, policy) for id in sorted(view.flavors)]
    return JSONLine([{"revision": revision, **each.to_fields(with_hypervisors=False)} for each in found])


def _capacity(view: ClusterView, flavor: str, network: str, policy: Policy) -> Capacity:
    found = capacity(view, flavor, network, policy.functions)
    if isinstance(found, Refused):
        kind = found.reason.removesuffix("_not_found")
        raise NotFoundError(kind, network if kind == "network" else flavor, field=kind)
    return found


def _guest_in(context: Context, body: bytes) -> GuestRecord:
    """The guest that the body describes. Raises ValidationError, NotFoundError."""
    asked = decode_object(body).get("guest", "")
    if not isinstance(asked, str):
        raise ValidationError("guest must be a string", field="guest")
    fields = known_fields(GuestRecord, body)
    if asked:
        fields = {**context.guest(parse_id(asked, field="guest")).to_fields(), **fields}
    try:
        guest = GuestRecord.from_fields({**fields, "id": fields.get("id") or new_id()})
    except msgspec.ValidationError as error:
        raise ValidationError(str(error)) from error
    for name in ("flavor", "network"):
        if not getattr(guest, name):
            raise ValidationError(f"{name} must not be blank", field=name)
    return guest


def _view(context: Context, policy: Policy) -> tuple[int, ClusterView]:
    """The cluster as of now: 20,000 bindings are not read where they are known."""
    known = policy.snapshot()
    if known is not None:
        return known
    reading = context.store.read(*CLUSTER_SELECTORS)
    return reading.revision, cluster_view(reading.revision, reading.ranges)
