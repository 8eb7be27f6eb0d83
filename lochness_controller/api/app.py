"""The API as one ASGI application."""

from __future__ import annotations

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
    documents,
    follow,
    guests,
    health,
    hypervisors,
    jobs,
    networks,
    placement,
    vlans,
)
from lochness_controller.api.changes import Changes
from lochness_controller.api.edge import Edge
from lochness_controller.api.follow import Listeners
from lochness_controller.api.jobs import JobNews
from lochness_controller.api.mirror import Mirror
from lochness_controller.api.placement import Policy
from lochness_controller.api.problems import answer_http_exception, answer_lochness_error, answer_unexpected

BODY_MAX_BYTES: Final = 1 << 20


def build_app(
    context: Context, clock: Clock, news: JobNews, mirror: Mirror, changes: Changes, policy: Policy
) -> ASGIApp:
    """The application on the store of `context`.

    `news` wakes the requests that wait for jobs, `mirror` answers lists, `changes` is what clients follow,
    `policy` places.
    """
    listeners = Listeners(changes)
    app = Litestar(
        route_handlers=[
            hypervisors.router(),
            guests.router(),
            jobs.router(),
            *networks.routers(),
            *catalog.routers(),
            *vlans.routers(),
            config.router(),
            follow.follow,
            placement.router(),
            health.healthz,
            health.readyz,
            health.metrics,
        ],
        dependencies={
            "context": Provide(lambda: context, sync_to_thread=False, use_cache=True),
            "clock": Provide(lambda: clock, sync_to_thread=False, use_cache=True),
            "mirror": Provide(lambda: mirror, sync_to_thread=False, use_cache=True),
            "listeners": Provide(lambda: listeners, sync_to_thread=False, use_cache=True),
            "policy": Provide(lambda: policy, sync_to_thread=False, use_cache=True),
            "news": Provide(lambda: news, sync_to_thread=False, use_cache=True),
        },
        exception_handlers={
            LochnessError: answer_lochness_error,
            HTTPException: answer_http_exception,
            Exception: answer_unexpected,
        },
        openapi_config=documents.CONFIG,
        request_max_body_size=BODY_MAX_BYTES,
        logging_config=None,
    )
    return Edge(app)
