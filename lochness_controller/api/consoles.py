"""What has a guest written to its serial console? Read from its agent, and handed on.

    curl -s localhost:17000/guests/ID/console              the end of it, as text
    curl -s localhost:17000/guests/ID/console?since=4711   what followed; X-Console-End is the next `since`

1. It costs no thread while the agent takes its time, and no longer than the agents' time limit.
2. At most `CONSOLES_MAX` are read at a time.

Not every agent has consoles: 404 then, as for a guest that its agent does not know.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from litestar import Response, get
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from lochness import agent_targets
from lochness.agent_access import AgentAccess
from lochness.agent_answers import CONSOLE_END_HEADER, GuestConsole, is_gone
from lochness.agent_targets import AgentDefaults
from lochness.errors import HTTPCodeError, NotFoundError, OverloadedError
from lochness.ids import parse_id
from lochness.store.lookup import look_up
from lochness.store.protocol import Store
from lochness_controller.api.documents import answers
from lochness_controller.workers.agent_calls import AgentCalls

CONSOLES_MAX: Final = 32
LIMIT_BYTES: Final = 64 << 10
LIMIT_BYTES_MAX: Final = 1 << 20


class Consoles:
    """The consoles of the cluster's guests. Used on one event loop.

    A request to an agent takes `timeout_s` at most; `access` is with what we come to the agents.
    """

    def __init__(self, store: Store, defaults: AgentDefaults, *, timeout_s: float, access: AgentAccess) -> None:
        self._store = store
        self._open = partial(AgentCalls, timeout_s=timeout_s, access=access)
        self._calls: AgentCalls | None = None  # made on the loop that uses it
        self._defaults = defaults
        self._reading = 0

    async def read(self, guest_id: str, since: int | None, limit_bytes: int) -> GuestConsole:
        """Raises NotFoundError, ConflictError (not placed), OverloadedError, UnavailableError, HTTPCodeError."""
        if self._reading >= CONSOLES_MAX:
            raise OverloadedError(f"{CONSOLES_MAX} consoles are being read already", reason="too_many_consoles")
        self._reading += 1
        calls = self._calls = self._calls or self._open()
        try:
            target = await sync_to_thread(look_up, self._store, agent_targets.target_of(guest_id, self._defaults))
            return await calls.console(target, guest_id, since, limit_bytes)
        except HTTPCodeError as error:
            if is_gone(error):
                raise NotFoundError("console of guest", guest_id) from error
            raise
        finally:
            self._reading -= 1

    async def close(self) -> None:
        if self._calls is not None:
            await self._calls.close()


_TEXT: Final = {
    **answers(str, 200, 404, 409, 502),
    200: ResponseSpec(
        data_container=str, description="Text; X-Console-End is the place behind it", generate_examples=False,
        media_type="text/plain",
    ),
}  # fmt: skip


@get("/guests/{id:str}/console", responses=_TEXT)
async def console(
    consoles: NamedDependency[Consoles],
    id: FromPath[str],
    since: Annotated[int | None, QueryParameter(ge=0, lt=1 << 60)] = None,
    limit_bytes: Annotated[int, QueryParameter(ge=1, le=LIMIT_BYTES_MAX)] = LIMIT_BYTES,
) -> Response[str]:
    """The end of a guest's serial console, or what came since a place."""
    found = await consoles.read(parse_id(id), since, limit_bytes)
    headers = {CONSOLE_END_HEADER: str(found.end), "X-Content-Type-Options": "nosniff"}
    return Response(found.text, media_type="text/plain", headers=headers)
