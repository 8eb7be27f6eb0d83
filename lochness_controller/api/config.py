"""The cluster's settings: /config, handled as a hypervisor's own are."""

from __future__ import annotations

from litestar import Router, get, patch
from litestar.params import RawBody

from lochness.context import Context
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.documents import answers, takes
from lochness_controller.api.given import GivenContext
from lochness_controller.api.noted import note
from lochness_controller.api.records import decoded


def router() -> Router:
    """The routes."""
    return Router(path="/config", route_handlers=[show, change])


@get("/", sync_to_thread=True, responses=answers(dict[str, str]))
def show(context: GivenContext) -> JSONLine:
    """All settings."""
    return JSONLine(_all(context))


@patch("/", sync_to_thread=True, responses=answers(dict[str, str]), operation_class=takes())
def change(context: GivenContext, body: RawBody) -> JSONLine:
    """Set the settings in the body, "" unsets one; answers all."""
    changes = decoded(body, dict[str, str], "an object of strings")
    context.set_configs(changes)
    note(action="changed", kind="Config", id=", ".join(sorted(changes)))
    return JSONLine(_all(context))


def _all(context: Context) -> dict[str, str]:
    settings: dict[str, str] = {}
    context.for_each_config(settings.__setitem__)
    return settings
