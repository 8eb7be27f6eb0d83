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
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

import httpx
import msgspec

from lochness import keys
from lochness.agent_access import AgentAccess
from lochness.agent_requests import AGENT_URL_CONFIG, agent_url, guest_request, image_request
from lochness.errors import (
    AgentJobError,
    AmbiguousWriteError,
    ConflictError,
    DeadlineError,
    HTTPCodeError,
    NotFoundError,
    UnavailableError,
)
from lochness.ids import parse_id
from lochness.keys import AGENT_PORT
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.record import JSONObject
from lochness.model.subnet import SubnetRecord
from lochness.store.protocol import Key, Prefix

if TYPE_CHECKING:
    from lochness.context import Context

JOB_ID_HEADER: Final = "X-Guest-Job-ID"
REQUEST_ID_HEADER: Final = "X-Request-ID"

TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 3.0
#: How long one request asks the agent to wait for a job's end.
LONG_POLL_S: Final = 10.0
#: How often a job is looked at when the agent does not wait.
POLL_S: Final = 0.25

T = TypeVar("T")

_OK: Final = 200
_ACCEPTED: Final = 202
_NOT_FOUND: Final = 404


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


class AgentJob(msgspec.Struct, frozen=True):
    """A job as the agent tells it; Status is Queued, Running, Complete or Error.

    What stands behind Message is not every agent's.
    """

    ID: str = ""
    GuestID: str = ""
    Action: str = ""
    Status: str = ""
    Message: str = ""
    Progress: str = ""
    Reason: str = ""
    RequestID: str = ""


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
        answer = self._send("GET", self._url_of(guest_id), f"/guests/{parse_id(guest_id)}", expected=_OK)
        return self._decode(answer, dict[str, Any])

    def create_guest(self, guest_id: str, *, request_id: str = "") -> str:
        """See `Agent.create_guest`. `request_id` is sent along, so that the job can be found again by `find_job`."""
        guest = self._guest(guest_id)
        selectors: list[Key | Prefix] = [Key(keys.flavor(guest.flavor)), Key(keys.subnet(guest.subnet))]
        if guest.vlangroup:
            selectors.append(Prefix(keys.vlangroup_vlans(guest.vlangroup)))
        flavors, subnets, *tags = self._store.read(*selectors).ranges
        flavor_item, subnet_item = (found[0] if found else None for found in (flavors, subnets))
        vlans = sorted(int(item.key.rpartition("/")[2]) for found in tags for item in found)
        if flavor_item is None:
            raise NotFoundError("flavor", guest.flavor, field="flavor")
        if subnet_item is None:
            raise NotFoundError("subnet", guest.subnet, field="subnet")
        request = guest_request(
            guest, FlavorRecord.from_json(flavor_item.value), SubnetRecord.from_json(subnet_item.value), vlans
        )
        return self._ask(self._url(guest), "/guests", request, request_id)

    def delete_guest(self, guest_id: str, *, request_id: str = "") -> str:
        """See `Agent.delete_guest`. HTTPCodeError with code 404 when the agent does not know it."""
        return self.guest_action(guest_id, "delete", request_id=request_id)

    def guest_action(self, guest_id: str, action: str, *, request_id: str = "") -> str:
        """See `Agent.guest_action`. HTTPCodeError with code 404 when the agent does not know the guest."""
        return self._ask(self._url_of(guest_id), f"/guests/{parse_id(guest_id)}/{action}", None, request_id)

    def fetch_image(self, guest_id: str, *, request_id: str = "") -> str:
        """Ask the guest's agent to fetch the image of the guest's flavor; answers the agent's job id."""
        guest = self._guest(guest_id)
        flavor_item = self._store.read(Key(keys.flavor(guest.flavor))).one()
        if flavor_item is None:
            raise NotFoundError("flavor", guest.flavor, field="flavor")
        image_id = FlavorRecord.from_json(flavor_item.value).image
        image_item = self._store.read(Key(keys.image(image_id))).one()
        if image_item is None:
            raise NotFoundError("image", image_id, field="image")
        request = image_request(ImageRecord.from_json(image_item.value))
        return self._ask(self._url(guest), "/images", request, request_id)

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
        answer = self._send(
            "GET", self._url_of(guest_id), f"/guests/{parse_id(guest_id)}/jobs", expected=_OK, query={"limit": "100"}
        )
        for job in self._decode(answer, list[AgentJob]):
            if job.RequestID == request_id and job.Action == action:
                return job.ID
        return ""

    def _is_complete(self, url: str, job_id: str, wait_s: float) -> bool:
        query = {"wait_s": f"{wait_s:g}"} if wait_s > 0 else {}
        answer = self._send("GET", url, f"/jobs/{job_id}", expected=_OK, query=query, wait_s=wait_s)
        job = self._decode(answer, AgentJob)
        if job.Status == "Error":
            message = job.Message or f"the agent's job {job_id} failed without a message"
            raise AgentJobError(message, agent_reason=job.Reason)
        return job.Status == "Complete"

    def _guest(self, guest_id: str) -> GuestRecord:
        id = parse_id(guest_id)
        item = self._store.read(Key(keys.guest(id))).one()
        if item is None:
            raise NotFoundError("guest", id)
        return GuestRecord.from_json(item.value)

    def _url_of(self, guest_id: str) -> str:
        return self._url(self._guest(guest_id))

    def _url(self, guest: GuestRecord) -> str:
        if not guest.hypervisor:
            raise ConflictError(f"guest {guest.id} has no hypervisor yet", reason="not_placed")
        reading = self._store.read(
            Key(keys.hypervisor(guest.hypervisor)), Key(keys.hypervisor_config(guest.hypervisor, AGENT_URL_CONFIG))
        )
        hypervisor, config = reading.one(0), reading.one(1)
        if hypervisor is None:
            raise NotFoundError("hypervisor", guest.hypervisor, field="hypervisor")
        return agent_url(
            HypervisorRecord.from_json(hypervisor.value),
            config.value.decode() if config else "",
            self.port,
            scheme=self._access.scheme,
        )

    def _ask(self, url: str, path: str, body: JSONObject | None, request_id: str) -> str:
        answer = self._send("POST", url, path, expected=_ACCEPTED, body=body, request_id=request_id)
        job_id: str = answer.headers.get(JOB_ID_HEADER, "")
        if not job_id:
            raise AgentJobError(f"the agent at {url} accepted POST {path} without naming a job ({JOB_ID_HEADER})")
        return job_id

    def _send(
        self,
        method: str,
        url: str,
        path: str,
        *,
        expected: int,
        body: JSONObject | None = None,
        request_id: str = "",
        query: dict[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if request_id:
            headers[REQUEST_ID_HEADER] = request_id
        what = f"{method} {url}{path}"
        headers |= self._access.headers(url)
        try:
            answer = self._client.request(
                method,
                url + path,
                content=msgspec.json.encode(body) if body is not None else None,
                headers=headers,
                params=query or None,
                timeout=httpx.Timeout(self._timeout_s + wait_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s)),
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UnavailableError(f"the agent was not reached: {what}: {_words(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            kind = UnavailableError if method == "GET" or isinstance(error, httpx.InvalidURL) else AmbiguousWriteError
            raise kind(f"the agent did not answer: {what}: {_words(error)}") from error
        except RuntimeError as error:  # httpx's word for a closed client
            raise UnavailableError(f"the agent client is closed: {what}") from error
        if answer.status_code != expected:
            raise HTTPCodeError(expected, answer.status_code, message=f"{what}: {_message_of(answer)}")
        return answer

    @staticmethod
    def _decode(answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"what listens at {answer.request.url} is no agent: it answers {answer.content[:80]!r}"
            ) from error


def is_gone(error: HTTPCodeError) -> bool:
    """Whether the agent said that it does not know what it was asked about."""
    return error.code == _NOT_FOUND


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _message_of(answer: httpx.Response) -> str:
    """The agent's own words, at most 500 characters of them."""
    try:
        body = msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return answer.text.strip()[:500]
    message = body.get("message") if isinstance(body, dict) else None
    return str(message if message else answer.text.strip())[:500]
