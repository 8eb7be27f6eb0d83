"""Which requests does the agent answer, and with what? The routes of WIRE.md section 6.

Handlers only translate: path, query and body to values, answers to JSON (`replies`). What blocks runs aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any, Final

from litestar import Litestar, delete, get, post
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp

from lochness.errors import LochnessError, NotFoundError, ValidationError
from lochness.identity import parse_id
from lochness_node.agent.agent import Agent
from lochness_node.agent.aside import aside
from lochness_node.agent.asked import agent_of, parsed_guest_id, request_id_of
from lochness_node.agent.document import JOBS_DEFAULT, JOBS_MAX, WAIT_MAX_S, openapi_document
from lochness_node.agent.jobs.registry import JobRegistry
from lochness_node.agent.replies import AnyRequest, Reply, error_reply, http_error, known_error, reply, unexpected_error
from lochness_node.agent.routes_console import CONSOLE_ROUTES
from lochness_node.agent.routes_metadata import METADATA_ROUTES
from lochness_node.agent.routes_metrics import METRICS_ROUTES
from lochness_node.agent.routes_snapshots import SNAPSHOT_ROUTES
from lochness_node.agent.wire import AgentJob

BODY_BYTES_MAX: Final = 1 << 20


def build_app(agent: Agent) -> ASGIApp:
    """The ASGI application that serves `agent`; `edge.guarded` goes around it."""
    app = Litestar(
        ROUTES,
        exception_handlers={LochnessError: known_error, HTTPException: http_error, Exception: unexpected_error},
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=None,
        logging_config=None,
    )
    app.state["agent"] = agent
    return app


@get("/healthz")
async def healthz(request: AnyRequest) -> Reply:
    if wrong := agent_of(request).health():
        return error_reply(wrong, 503, "not_ready")
    return reply({"status": "ok"})


@get("/schema/openapi.json")
async def document() -> Reply:
    return reply(openapi_document())


@get("/guests")
async def list_guests(request: AnyRequest) -> Reply:
    return reply(await aside(agent_of(request).guests))


@post("/guests")
async def create_guest(request: AnyRequest) -> Reply:
    agent, body = agent_of(request), await request.body()
    guest, job = await aside(lambda: agent.create(body, request_id_of(request)))
    return reply(guest, status=202, job_id=job.id)


@get("/guests/{guest_id:str}")
async def get_guest(request: AnyRequest, guest_id: str) -> Reply:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    return reply(await aside(lambda: agent.guest(id)))


@post("/guests/{guest_id:str}/{action:str}")
async def act_on_guest(request: AnyRequest, guest_id: str, action: str) -> Reply:
    agent, id = agent_of(request), parsed_guest_id(guest_id)
    guest, job = await aside(lambda: agent.act(id, action, request_id_of(request)))
    return reply(guest, status=202, job_id=job.id)


@get("/guests/{guest_id:str}/jobs")
async def guest_jobs(request: AnyRequest, guest_id: str) -> Reply:
    return reply(agent_of(request).jobs.newest(guest_id=parsed_guest_id(guest_id), limit=_limit(request)))


@get("/guests/{guest_id:str}/jobs/{job_id:str}")
async def guest_job(request: AnyRequest, guest_id: str, job_id: str) -> Reply:
    id = parsed_guest_id(guest_id)
    job = agent_of(request).jobs.get(parse_id(job_id, field="job"))
    if job.guest_id != id:
        raise NotFoundError("job", job_id)
    return reply(await _waited(request, job))


@get("/jobs")
async def list_jobs(request: AnyRequest) -> Reply:
    return reply(agent_of(request).jobs.newest(limit=_limit(request)))


@get("/jobs/{job_id:str}")
async def get_job(request: AnyRequest, job_id: str) -> Reply:
    return reply(await _waited(request, agent_of(request).jobs.get(parse_id(job_id, field="job"))))


@get("/images")
async def list_images(request: AnyRequest) -> Reply:
    return reply(await aside(agent_of(request).images))


@post("/images")
async def fetch_image(request: AnyRequest) -> Reply:
    agent, body = agent_of(request), await request.body()
    image, job = await aside(lambda: agent.fetch(body, request_id_of(request)))
    return reply(image, status=202, job_id=job.id)


@get("/images/{image_id:str}")
async def get_image(request: AnyRequest, image_id: str) -> Reply:
    agent, id = agent_of(request), parse_id(image_id, field="image")
    return reply(await aside(lambda: agent.image(id)))


@delete("/images/{image_id:str}", status_code=200)
async def delete_image(request: AnyRequest, image_id: str) -> Reply:
    agent, id = agent_of(request), parse_id(image_id, field="image")
    return reply(await aside(lambda: agent.delete_image(id)))


async def _waited(request: AnyRequest, job: AgentJob) -> AgentJob:
    """The job as it is when it has ended, or after ?wait_s= seconds, or when the agent ends."""
    wait_s = _wait_s(request)
    if wait_s <= 0 or job.is_finished:
        return job
    jobs: JobRegistry = agent_of(request).jobs
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and this request with it
            loop.call_soon_threadsafe(ended.set)

    cancel = jobs.call_when_finished(job.id, tell)
    try:
        async with asyncio.timeout(wait_s):
            await ended.wait()
    except TimeoutError:
        pass  # the answer says how far the job is
    finally:
        cancel()
    return jobs.get(job.id)


def _wait_s(request: AnyRequest) -> float:
    text = _parameter(request, "wait_s", "0")
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not wait_s >= 0:  # also nan
        raise ValidationError(f"wait_s must be a number of seconds, got {text!r}", field="wait_s")
    return min(wait_s, WAIT_MAX_S)


def _limit(request: AnyRequest) -> int:
    text = _parameter(request, "limit", str(JOBS_DEFAULT))
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
        raise ValidationError(f"limit must be a number from 1 on, got {text!r}", field="limit")
    return min(int(text[:9]), JOBS_MAX)


def _parameter(request: AnyRequest, name: str, default: str) -> str:
    value: Any = request.query_params.get(name, default)
    return str(value)


ROUTES: Final = (
    *(healthz, document, list_guests, create_guest, get_guest, guest_jobs, guest_job, act_on_guest),
    *(list_jobs, get_job, list_images, fetch_image, get_image, delete_image),
    *(*CONSOLE_ROUTES, *METADATA_ROUTES, *METRICS_ROUTES, *SNAPSHOT_ROUTES),
)
