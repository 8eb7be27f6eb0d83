"""How is a hypervisor's agent asked for something? Over HTTP, as WIRE.md section 6 says.

    agent = MistifyAgent(context)
    job_id = agent.create_guest(guest_id)
    agent.wait_job(guest_id, job_id, limit_s=120)

Invariants:
1. No call lasts longer than `timeout_s` plus the time it asked the agent to wait; every error of the HTTP client is one
   of ours.
2. Works with any agent that speaks WIRE.md and no more; `?wait_s=` is used where the agent heeds it.

Not guaranteed: that a request that failed after it was sent did not take effect: `AmbiguousWriteError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import httpx
import msgspec

from lochness import agent_targets
from lochness.agent_access import AgentAccess
from lochness.agent_answers import (
    JOB_ID_HEADER,
    AgentAnswer,
    AgentJob,
    checked,
    closed,
    decoded,
    headers_of,
    job_id_of,
    unaddressed,
    unanswered,
    unreached,
)
from lochness.agent_targets import AgentDefaults, AgentRequest
from lochness.errors import DeadlineError
from lochness.ids import parse_id
from lochness.keys import AGENT_PORT
from lochness.model.record import JSONObject
from lochness.store.lookup import look_up

if TYPE_CHECKING:
    from lochness.context import Context

TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 3.0
#: How long one request asks the agent to wait for a job's end.
LONG_POLL_S: Final = 10.0
#: How often a job is looked at when the agent does not wait.
POLL_S: Final = 0.25

_OK: Final = 200
_ACCEPTED: Final = 202


class Agent(Protocol):
    """What a hypervisor's agent does for the guests that are placed there."""

    def get_guest(self, guest_id: str) -> JSONObject:
        """The guest as the agent knows it, with its "state"."""
        ...

    def create_guest(self, guest_id: str) -> str:
        """Ask for the guest; answers the agent's job id."""
        ...

    def delete_guest(self, guest_id: str) -> str:
        """Ask for the guest's removal; answers the agent's job id."""
        ...

    def guest_action(self, guest_id: str, action: str) -> str:
        """Ask for shutdown, reboot, restart, poweroff, start, suspend or resume; answers the agent's job id."""
        ...

    def check_job_status(self, guest_id: str, job_id: str) -> bool:
        """Whether the job is done. Raises AgentJobError, with the agent's message, when it failed."""
        ...


class MistifyAgent:
    """The agents of one cluster: each call goes to the agent of the hypervisor that the guest is placed on.

    `port` <= 0 means AGENT_PORT; a hypervisor's config key "agentUrl" overrides scheme, address and port. `access` says
    how the agents are known to be ours and we to them; making the client raises ConfigurationError when that cannot
    work. Safe to share between threads. Every call raises NotFoundError (guest, hypervisor, flavor, subnet or image),
    ConflictError (reason "not_placed"), HTTPCodeError for a wrong status, UnavailableError when the agent was not
    reached, AmbiguousWriteError when a request was sent and no answer came.
    """

    def __init__(
        self,
        context: Context,
        port: int = 0,
        *,
        timeout_s: float = TIMEOUT_S,
        access: AgentAccess = AgentAccess(),  # noqa: B008  (frozen)
    ) -> None:
        access.check()
        self._access = access
        self._store = context.store
        self.port = port if port > 0 else AGENT_PORT
        self._defaults = AgentDefaults(self.port, access.scheme)
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64),
            verify=access.tls() or True,
            trust_env=False,  # a proxy set for the machine's web traffic is not on the way to an agent
        )

    def close(self) -> None:
        """End every connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def get_guest(self, guest_id: str) -> JSONObject:
        """See `Agent.get_guest`. HTTPCodeError with code 404 when the agent does not know it."""
        return decoded(self._get(self._url_of(guest_id), f"/guests/{parse_id(guest_id)}"), dict[str, Any])

    def create_guest(self, guest_id: str, *, request_id: str = "") -> str:
        """See `Agent.create_guest`. `request_id` is sent along, so that the job can be found again by `find_job`."""
        return self._ask(look_up(self._store, agent_targets.creation(guest_id, self._defaults)), request_id)

    def delete_guest(self, guest_id: str, *, request_id: str = "") -> str:
        """See `Agent.delete_guest`. HTTPCodeError with code 404 when the agent does not know it."""
        return self.guest_action(guest_id, "delete", request_id=request_id)

    def guest_action(self, guest_id: str, action: str, *, request_id: str = "") -> str:
        """See `Agent.guest_action`. HTTPCodeError with code 404 when the agent does not know the guest."""
        return self._ask(look_up(self._store, agent_targets.action(guest_id, action, self._defaults)), request_id)

    def fetch_image(self, guest_id: str, *, request_id: str = "") -> str:
        """Ask the guest's agent to fetch the image of the guest's flavor; answers the agent's job id."""
        return self._ask(look_up(self._store, agent_targets.image_fetch(guest_id, self._defaults)), request_id)

    def check_job_status(self, guest_id: str, job_id: str, *, wait_s: float = 0) -> bool:
        """See `Agent.check_job_status`. With `wait_s` the agent may answer later, at the job's end or after that time.

        HTTPCodeError with code 404 when the agent does not know the job.
        """
        return self._is_complete(self._url_of(guest_id), job_id, wait_s)

    def wait_job(
        self,
        guest_id: str,
        job_id: str,
        *,
        limit_s: float,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Return when the job is complete; AgentJobError when it failed, DeadlineError after `limit_s` seconds.

        `pause(seconds)` is called between two looks at an agent that does not wait by itself.
        """
        url = self._url_of(guest_id)
        deadline_s = time.monotonic() + limit_s
        while True:
            asked_s = time.monotonic()
            wait_s = max(0.0, min(deadline_s - asked_s, LONG_POLL_S))
            if self._is_complete(url, job_id, wait_s):
                return
            now_s = time.monotonic()
            if now_s >= deadline_s:
                raise DeadlineError(f"the agent's job {job_id} has not ended within {limit_s:g} s", limit_s=limit_s)
            if now_s - asked_s < wait_s / 2:
                pause(min(POLL_S, deadline_s - now_s))

    def find_job(self, guest_id: str, action: str, request_id: str) -> str:
        """The id of the agent's job that came of the request `request_id`, "" when the agent tells of none."""
        answer = self._get(self._url_of(guest_id), f"/guests/{parse_id(guest_id)}/jobs", {"limit": "100"})
        for job in decoded(answer, list[AgentJob]):
            if job.RequestID == request_id and job.Action == action:
                return job.ID
        return ""

    def _is_complete(self, url: str, job_id: str, wait_s: float) -> bool:
        query = {"wait_s": f"{wait_s:g}"} if wait_s > 0 else {}
        return decoded(self._get(url, f"/jobs/{job_id}", query, wait_s), AgentJob).has_ended(job_id)

    def _url_of(self, guest_id: str) -> str:
        return look_up(self._store, agent_targets.target_of(guest_id, self._defaults)).url

    def _ask(self, request: AgentRequest, request_id: str) -> str:
        return job_id_of(self._send("POST", request.target.url, request.path, request.body, request_id), request.what)

    def _get(self, url: str, path: str, query: dict[str, str] | None = None, wait_s: float = 0.0) -> AgentAnswer:
        return self._send("GET", url, path, query=query, wait_s=wait_s)

    def _send(
        self,
        method: str,
        url: str,
        path: str,
        body: JSONObject | None = None,
        request_id: str = "",
        *,
        query: dict[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> AgentAnswer:
        what = f"{method} {url}{path}"
        try:
            answer = self._client.request(
                method,
                url + path,
                content=msgspec.json.encode(body) if body is not None else None,
                headers=headers_of(body, request_id) | self._access.headers(url),
                params=query or None,
                timeout=httpx.Timeout(self._timeout_s + wait_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s)),
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise unreached(what, error) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise unaddressed(what, error) from error
        except httpx.HTTPError as error:
            raise unanswered(method, what, error) from error
        except RuntimeError as error:
            raise closed(what) from error
        job_id = answer.headers.get(JOB_ID_HEADER, "")
        came = AgentAnswer(answer.status_code, answer.content, job_id, str(answer.request.url))
        return checked(came, _OK if method == "GET" else _ACCEPTED, what)
