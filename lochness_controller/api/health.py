"""Is the controller alive, can it do its work, and what are its figures?"""

from __future__ import annotations

from typing import Final

from litestar import Response, get

from lochness import keys
from lochness.errors import LochnessError
from lochness.metrics import process_figures, render
from lochness.model.record import JSONObject
from lochness.store.protocol import Prefix
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.given import GivenContext
from lochness_controller.api.problems import problem

_NOT_READY: Final = 503


@get("/healthz")
async def healthz() -> JSONLine:
    """200 while the process answers at all."""
    return JSONLine({"status": "ok"})


@get("/readyz", sync_to_thread=True)
def readyz(context: GivenContext) -> JSONLine:
    """200 when the store answers, else 503 with the reason."""
    try:
        reading = context.store.read(Prefix(keys.CONTROLLER_PATH, keys_only=True))
    except LochnessError as error:
        return JSONLine(
            problem(error.message, _NOT_READY, error.reason, {"status": "not_ready"}), status_code=_NOT_READY
        )
    status: JSONObject = {"status": "ready", "controllers": len(reading.ranges[0]), "revision": reading.revision}
    return JSONLine(status)


@get("/metrics", sync_to_thread=True, include_in_schema=False)
def metrics() -> Response[bytes]:
    """The process's figures in Prometheus' text format."""
    body, content_type = render([process_figures])
    return Response(body, headers={"content-type": content_type}, media_type=content_type)
