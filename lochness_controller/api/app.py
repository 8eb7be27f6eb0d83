"""The API as one ASGI application."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp

from lochness.clock import Clock
from lochness.context import Context
from lochness.errors import LochnessError
from lochness_controller.api import (
    catalog,
    config,
    consoles,
    documents,
    follow,
    guests,
    health,
    hypervisors,
    jobs,
    networks,
    page,
    placement,
    tokens,
    vlans,
)
from lochness_controller.api.changes import Changes
from lochness_controller.api.consoles import Consoles
from lochness_controller.api.door import Door, KnownTokens
from lochness_controller.api.edge import Edge
from lochness_controller.api.follow import Listeners
from lochness_controller.api.guests import Creating
from lochness_controller.api.jobs import JobNews
from lochness_controller.api.lane import Lane
from lochness_controller.api.mirror import Mirror
from lochness_controller.api.placement import Policy
from lochness_controller.api.preconditions import refuse_where_there_is_no_revision
from lochness_controller.api.problems import answer_http_exception, answer_lochness_error, answer_unexpected
from lochness_controller.api.repeats import Repeats
from lochness_controller.api.room import Room
from lochness_controller.group_commit import GroupCommit

BODY_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application needs of the controller.

    `news` wakes the requests that wait for jobs, `mirror` answers lists, `changes` is what clients follow, `id` is the
    controller's, `controllers_alive` who is running, `tokens` who may come in, `room`
    whether there is room for more jobs, `policy` places, `consoles` are the guests'.
    """

    context: Context
    clock: Clock
    news: JobNews
    mirror: Mirror
    changes: Changes
    tokens: KnownTokens
    room: Room
    policy: Policy
    consoles: Consoles
    id: str
    controllers_alive: Callable[[], Collection[str]]
    is_token_required: bool
    requests_max: int


def build_app(parts: Parts) -> ASGIApp:
    """The application on the store of `parts.context`."""
    context, clock, news, mirror = parts.context, parts.clock, parts.news, parts.mirror
    listeners = Listeners(parts.changes)
    creating = Creating(context, mirror, clock, parts.room, GroupCommit(context.store))
    app = Litestar(
        route_handlers=[
            hypervisors.router(),
            guests.router(),
            jobs.router(),
            *networks.routers(),
            *catalog.routers(),
            *vlans.routers(),
            config.router(),
            tokens.router(),
            consoles.console,
            follow.follow,
            placement.router(),
            page.router(),
            health.healthz,
            health.readyz,
            health.metrics,
        ],
        dependencies={
            "context": Provide(lambda: context, sync_to_thread=False, use_cache=True),
            "clock": Provide(lambda: clock, sync_to_thread=False, use_cache=True),
            "mirror": Provide(lambda: mirror, sync_to_thread=False, use_cache=True),
            "listeners": Provide(lambda: listeners, sync_to_thread=False, use_cache=True),
            "policy": Provide(lambda: parts.policy, sync_to_thread=False, use_cache=True),
            "room": Provide(lambda: parts.room, sync_to_thread=False, use_cache=True),
            "made": Provide(lambda: creating, sync_to_thread=False, use_cache=True),
            "consoles": Provide(lambda: parts.consoles, sync_to_thread=False, use_cache=True),
            "news": Provide(lambda: news, sync_to_thread=False, use_cache=True),
        },
        exception_handlers={
            LochnessError: answer_lochness_error,
            HTTPException: answer_http_exception,
            Exception: answer_unexpected,
        },
        before_request=refuse_where_there_is_no_revision,
        openapi_config=documents.CONFIG,
        request_max_body_size=BODY_MAX_BYTES,
        logging_config=None,
    )
    once = Repeats(
        Lane(app, creating, mirror, body_max_bytes=BODY_MAX_BYTES),
        context.store,
        id=parts.id,
        controllers_alive=parts.controllers_alive,
        body_max_bytes=BODY_MAX_BYTES,
    )
    door = Door(
        once,
        parts.tokens,
        clock,
        is_token_required=parts.is_token_required,
        requests_max=parts.requests_max,
    )
    return Edge(door)
