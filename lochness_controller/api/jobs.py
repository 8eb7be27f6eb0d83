"""Jobs: /jobs, newest first, and /jobs/{id}, which can be waited for and cancelled.

Not guaranteed: that a wait ends with the very change that ended it; a client that needs the job's end asks again until
its status is done or error.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Final

from litestar import Router, get, post
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from lochness import keys
from lochness.context import Context
from lochness.errors import NotFoundError, ValidationError
from lochness.ids import parse_id
from lochness.jobs import request_cancel
from lochness.model.job import JobRecord
from lochness.store.protocol import Key, KeyValue
from lochness_controller.api.answers import JOB_ID_HEADER, JSONLine, array_of
from lochness_controller.api.documents import answers
from lochness_controller.api.given import GivenClock, GivenContext, GivenMirror
from lochness_controller.api.noted import note

WAIT_MAX_S: Final = 60.0
LIMIT_MAX: Final = 100_000
#: A change that no watch told of is seen after this time.
_LOOK_S: Final = 2.0


class JobNews:
    """Wakes requests that wait for a job. `tell` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(list)

    def tell(self, ids: Iterable[str]) -> None:
        """These jobs have changed."""
        with self._lock:
            for id in ids:
                for loop, event in self._waiting.get(id, ()):
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(event.set)

    @contextmanager
    def heard(self, id: str) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set whenever the job changes."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting[id].append(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._waiting[id].remove(entry)
                if not self._waiting[id]:
                    del self._waiting[id]


def router() -> Router:
    """The routes."""
    return Router(path="/jobs", route_handlers=[list_jobs, show, cancel])


@get("/", sync_to_thread=True, responses=answers(list[JobRecord]))
def list_jobs(
    mirror: GivenMirror,
    guest: FromQuery[str] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)] = LIMIT_MAX,
) -> JSONLine:
    """Jobs, newest first; of one guest only, at most so many."""
    guest_id = parse_id(guest, field="guest") if guest else ""
    return JSONLine(array_of(mirror.jobs().newest(guest_id, limit)))


@get("/{id:str}", responses=answers(JobRecord, 200, 404))
async def show(
    context: GivenContext, news: NamedDependency[JobNews], id: FromPath[str], wait_s: FromQuery[float] = 0.0
) -> JSONLine:
    """One job. With `wait_s` the answer waits until the job has changed, at most that many seconds (up to 60)."""
    if not math.isfinite(wait_s) or wait_s < 0:
        raise ValidationError(f"wait_s must be a number of seconds, got {wait_s}", field="wait_s")
    key = keys.job(parse_id(id))
    with news.heard(parse_id(id)) as changed:
        item = await sync_to_thread(_read, context, key)
        first_revision = item.mod_revision
        deadline_s = asyncio.get_running_loop().time() + min(wait_s, WAIT_MAX_S)
        while item.mod_revision == first_revision and not JobRecord.from_json(item.value).is_finished:
            remaining_s = deadline_s - asyncio.get_running_loop().time()
            if remaining_s <= 0:
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(remaining_s, _LOOK_S))
            changed.clear()
            item = await sync_to_thread(_read, context, key)
    return JSONLine(JobRecord.from_json(item.value).to_json())


@post("/{id:str}/cancel", sync_to_thread=True, status_code=202, responses=answers(JobRecord, 202, 404, 409))
def cancel(context: GivenContext, clock: GivenClock, id: FromPath[str]) -> JSONLine:
    """Ask for the job's end before its time; answers the job, whose own end says what became of it."""
    job = request_cancel(context.store, parse_id(id), clock.now())
    note(action="cancel asked for", kind="Job", id=job.id)
    return JSONLine(job.to_json(), status_code=202, headers={JOB_ID_HEADER: job.id})


def _read(context: Context, key: str) -> KeyValue:
    item = context.store.read(Key(key)).one()
    if item is None:
        raise NotFoundError("job", keys.last_part(key))
    return item
