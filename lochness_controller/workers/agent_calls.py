"""How do workers talk to agents? As lochness.agent_client, on an event loop: a job that waits costs no thread.

Invariants:
1. No call lasts longer than `timeout_s` plus the time it asked the agent to wait.
2. The number of connections is bounded by the jobs that are worked on, not here: a pool that hanging agents fill would
   keep the others waiting.

Errors are those of lochness.agent_client, and ConfigurationError when the token must not be sent to an agent.
"""

from __future__ import annotations

from typing import Final

import aiohttp
import msgspec
from yarl import URL

from lochness.agent_access import AgentAccess
from lochness.agent_answers import (
    CONSOLE_END_HEADER,
    JOB_ID_HEADER,
    AgentAnswer,
    AgentJob,
    GuestConsole,
    checked,
    closed,
    console_of,
    decoded,
    headers_of,
    is_gone,
    job_id_of,
    unaddressed,
    unanswered,
    unreached,
)
from lochness.agent_client import CONNECT_TIMEOUT_S, TIMEOUT_S
from lochness.agent_targets import AgentRequest, AgentTarget
from lochness.errors import HTTPCodeError

_OK: Final = 200
_ACCEPTED: Final = 202
#: Shorter than any server's: a connection that it closes while we send is an answer that never comes.
_KEEP_ALIVE_S: Final = 3.0
#: How many of a guest's jobs are looked through, newest first.
_JOBS_LOOKED_AT: Final = 100


class AgentCalls:
    """The agents of one cluster; `access` is with what we come to them. Used on one event loop."""

    def __init__(
        self,
        *,
        timeout_s: float = TIMEOUT_S,
        access: AgentAccess = AgentAccess(),  # noqa: B008  (frozen)
    ) -> None:
        self._timeout_s = timeout_s
        self._access = access
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=access.tls() or True, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """End every connection."""
        await self._client.close()

    async def ask(self, request: AgentRequest, request_id: str) -> str:
        """Ask for something; answers the agent's job id. `request_id` is sent along, so that `jobs_of` can tell it."""
        content = msgspec.json.encode(request.body) if request.body is not None else None
        headers = headers_of(request.body, request_id)
        answer = await self._send("POST", request.target, request.path, content=content, headers=headers)
        return job_id_of(answer, request.what)

    async def look(self, target: AgentTarget, job_id: str, wait_s: float) -> AgentJob:
        """The agent's job. With `wait_s` the agent may answer later, at the job's end or after that time."""
        path = f"/jobs/{job_id}" + (f"?wait_s={wait_s:g}" if wait_s > 0 else "")
        return decoded(await self._send("GET", target, path, wait_s=wait_s), AgentJob)

    async def jobs_of(self, target: AgentTarget, guest_id: str) -> list[AgentJob]:
        """The guest's jobs as the agent tells them, newest first."""
        path = f"/guests/{guest_id}/jobs?limit={_JOBS_LOOKED_AT}"
        return decoded(await self._send("GET", target, path), list[AgentJob])

    async def console(self, target: AgentTarget, guest_id: str, since: int | None, limit_bytes: int) -> GuestConsole:
        """The end of the guest's console, or what came since a place. HTTPCodeError 404 where it has none."""
        query = f"limit_bytes={limit_bytes}" + (f"&since={since}" if since is not None else "")
        return console_of(await self._send("GET", target, f"/guests/{guest_id}/console?{query}"))

    async def knows(self, target: AgentTarget, guest_id: str) -> bool:
        """Whether the agent has the guest."""
        try:
            await self._send("GET", target, f"/guests/{guest_id}")
        except HTTPCodeError as error:
            if is_gone(error):
                return False
            raise
        return True

    async def _send(
        self,
        method: str,
        target: AgentTarget,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> AgentAnswer:
        what = f"{method} {target.url}{path}"
        headers = (headers or {}) | self._access.headers(target.url)
        timeout = aiohttp.ClientTimeout(
            total=self._timeout_s + wait_s, sock_connect=min(CONNECT_TIMEOUT_S, self._timeout_s)
        )
        try:
            url = URL(target.url + path, encoded=True)
            async with self._client.request(
                method, url, data=content, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                job_id = answer.headers.get(JOB_ID_HEADER, "")
                end = answer.headers.get(CONSOLE_END_HEADER, "")
                came = AgentAnswer(answer.status, await answer.read(), job_id, str(url), end)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise unreached(what, error) from error
        except (ValueError, aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise unaddressed(what, error) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unanswered(method, what, error) from error
        except RuntimeError as error:
            raise closed(what) from error
        return checked(came, _OK if method == "GET" else _ACCEPTED, what)
