"""What does an agent look like to the controller? WIRE.md section 6 over HTTP, in memory, that fails on demand.

1. It speaks what WIRE.md says and, with `waits`, `?wait_s=`; with `tells_requests` its jobs carry their RequestID. With
   neither it is as little as an agent can be.
2. `hold` keeps jobs from ending until `release`; `fail_next` lets the next job of an action end in an error; `job_s` is
   how long a job takes; `forget_jobs` is a restart without a journal.
3. `hang` lets every request wait without an answer until `recover`; `answer_garbage` is what a stranger on its port
   would say.
4. Everything that was asked of it is in `requests`, in order.

It makes no disks and no domains. A guest that is created twice is the same guest. Many agents may share one port
(`AgentServer`), each below a path of its own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

JSONObject = dict[str, Any]
#: Status, content, and the job it names.
Answer = tuple[int, Any, JSONObject | None]

#: The GuestID of jobs that fetch an image.
FETCHING = "agent"

ACTIONS = ("shutdown", "reboot", "restart", "poweroff", "start", "suspend", "resume", "delete")
STATES = {
    "shutdown": "stopped",
    "poweroff": "stopped",
    "reboot": "running",
    "restart": "running",
    "start": "running",
    "suspend": "paused",
    "resume": "running",
}


@dataclass(slots=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    body: JSONObject
    request_id: str


@dataclass(slots=True)
class _State:
    guests: dict[str, JSONObject] = field(default_factory=dict)
    jobs: dict[str, JSONObject] = field(default_factory=dict)
    images: dict[str, JSONObject] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    failures: dict[str, JSONObject] = field(default_factory=dict)
    unfinished: dict[str, JSONObject] = field(default_factory=dict)
    put_off: str = ""
    behind: str = ""
    late: list[tuple[list[str], JSONObject, str]] = field(default_factory=list)


class FakeAgent:
    """An agent on a port of its own. A context manager, or start() and stop(); a restart keeps port and state."""

    def __init__(self, *, waits: bool = True, tells_requests: bool = True, job_s: float = 0.0) -> None:
        self.waits = waits
        self.tells_requests = tells_requests
        self.job_s = job_s
        self.answers_garbage = False
        #: What guests have written to their consoles, by id; without an entry it is an agent that has none.
        self.consoles: dict[str, bytes] = {}
        self._is_hanging = False
        self._state = _State()
        self._changed = threading.Condition()
        self._server = AgentServer(self._only)
        self._is_up = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def guests(self) -> dict[str, JSONObject]:
        """The guests it has, by id."""
        with self._changed:
            return dict(self._state.guests)

    @property
    def requests(self) -> list[Asked]:
        """What it was asked, oldest first."""
        with self._changed:
            return list(self._state.requests)

    def asked(self, method: str, path_end: str) -> list[Asked]:
        """The requests of this method whose path ends so."""
        return [each for each in self.requests if each.method == method and each.path.endswith(path_end)]

    def start(self) -> None:
        """Listen; on the same port as before when it was stopped."""
        self.power_on()
        self._server.start()

    def stop(self) -> None:
        """Be not reachable; requests that wait are answered at once."""
        self.power_off()
        self._server.stop()

    def power_on(self) -> None:
        """Answer, wherever it is that requests come in; for agents that share a port."""
        self._is_up = True

    def power_off(self) -> None:
        """Close every connection that asks for this agent."""
        self.recover()
        with self._changed:
            self._is_up = False
            self._changed.notify_all()

    @property
    def is_up(self) -> bool:
        return self._is_up

    def hang(self) -> None:
        """Take connections and requests, and answer none of them."""
        with self._changed:
            self._is_hanging = True

    def recover(self) -> None:
        """Answer again, what waits first."""
        with self._changed:
            self._is_hanging = False
            self._changed.notify_all()

    def hold(self, *actions: str) -> None:
        """Jobs of these actions ("fetchImage", "create", "delete" ...) stay Running until `release`."""
        with self._changed:
            self._state.held |= set(actions)

    def release(self) -> None:
        """Let every held job end, and later ones at once."""
        with self._changed:
            self._state.held.clear()
            self._end_due(is_released=True)
            self._changed.notify_all()

    def fail_next(self, action: str, message: str, reason: str = "") -> None:
        """The next job of this action ends in an error with this message and, unless "", this Reason."""
        with self._changed:
            self._state.failures[action] = {"Message": message, **({"Reason": reason} if reason else {})}

    def put_off(self, late: str, behind: str) -> None:
        """POSTs whose path ends with `late` get no answer, and take effect behind the next that ends with `behind`: the
        network brought them late."""
        with self._changed:
            self._state.put_off, self._state.behind = late, behind

    def forget_jobs(self) -> None:
        """Know no job any more, as after a restart without a journal."""
        with self._changed:
            self._state.jobs.clear()
            self._state.unfinished.clear()
            self._changed.notify_all()

    # What the request handler calls.

    def _only(self, _name: str) -> FakeAgent:
        return self

    def note(self, asked: Asked) -> None:
        with self._changed:
            self._state.requests.append(asked)

    def wait_while_hanging(self) -> None:
        with self._changed:
            while self._is_hanging:
                self._changed.wait()

    def is_put_off(self, path: list[str], body: JSONObject, request_id: str) -> bool:
        """Whether this POST gets no answer, and has no effect yet."""
        with self._changed:
            is_it = path[-1:] == [self._state.put_off]
            if is_it:
                self._state.late.append((path, body, request_id))
            return is_it

    def post(self, path: list[str], body: JSONObject, request_id: str) -> Answer:
        """The answer to a POST, and its effect."""
        answer = self._post(path, body, request_id)
        with self._changed:
            late: list[tuple[list[str], JSONObject, str]] = []
            if path[-1] == self._state.behind:
                late, self._state.late, self._state.put_off = self._state.late, [], ""
        for each in late:
            self._post(*each)
        return answer

    def _post(self, path: list[str], body: JSONObject, request_id: str) -> Answer:
        match path:
            case ["images"]:
                job = self.queue("fetchImage", FETCHING, body, request_id)
                return 202, {"id": body["id"], "type": body["type"], "size": 0, "status": "pending"}, job
            case ["guests"]:
                return 202, body, self.queue("create", body["id"], body, request_id)
            case ["guests", id, action] if action in ACTIONS:
                guest = self.guests.get(id)
                if guest is None:
                    return _not_found("guest", id)
                return 202, guest, self.queue(action, id, guest, request_id)
            case _:
                return _not_found("path", "/".join(path))

    def queue(self, action: str, guest_id: str, subject: JSONObject, request_id: str) -> JSONObject:
        """A job, ended already unless it takes its time or jobs of its action are held."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        job: JSONObject = {
            "ID": str(uuid.uuid4()),
            "GuestID": guest_id,
            "Action": action,
            "QueuedAt": now,
            "StartedAt": now,
            "UpdatedAt": now,
            "Status": "Running",
            "Message": "",
            **({"RequestID": request_id} if self.tells_requests else {}),
            "_subject": subject,
            "_due_s": time.monotonic() + self.job_s,
        }
        with self._changed:
            self._state.jobs[job["ID"]] = job
            self._state.unfinished[job["ID"]] = job
            self._end_due()
        return job

    def _end_due(self, *, is_released: bool = False) -> None:
        """End every job whose time has come; those of one guest in the order of their coming."""
        now_s = time.monotonic()
        behind: set[str] = set()
        for job in list(self._state.unfinished.values()):
            is_due = job["Action"] not in self._state.held and now_s >= job["_due_s"]
            if is_released or (is_due and job["GuestID"] not in behind):
                del self._state.unfinished[job["ID"]]
                self._end(job)
            elif job["GuestID"] != FETCHING:
                behind.add(job["GuestID"])

    def _end(self, job: JSONObject) -> None:
        action, subject = job["Action"], job["_subject"]
        if action in self._state.failures:
            job.update(Status="Error", **self._state.failures.pop(action))
            return
        match action:
            case "fetchImage":
                self._state.images[subject["id"]] = subject
            case "create":
                self._state.guests[subject["id"]] = {**subject, "state": "running"}
            case "delete":
                self._state.guests.pop(subject["id"], None)
            case _:
                self._state.guests[subject["id"]]["state"] = STATES[action]
        job["Status"] = "Complete"

    def job(self, id: str, wait_s: float) -> JSONObject | None:
        deadline_s = time.monotonic() + (wait_s if self.waits else 0)
        with self._changed:
            while True:
                self._end_due()
                job = self._state.jobs.get(id)
                remaining_s = deadline_s - time.monotonic()
                if job is None or job["Status"] != "Running" or remaining_s <= 0 or not self._is_up:
                    return dict(job) if job else None
                due_s = job["_due_s"] - time.monotonic()
                self._changed.wait(min(remaining_s, due_s) if due_s > 0 else remaining_s)

    def jobs_of(self, guest_id: str) -> list[JSONObject]:
        with self._changed:
            self._end_due()
            return [dict(job) for job in reversed(self._state.jobs.values()) if job["GuestID"] == guest_id]


class AgentServer:
    """Answers for the agents that `find` knows, on one port of loopback: `url`, or `url`/NAME when there are several.

    `find` gets the first part of the path; it answers None for a name that it does not know.
    """

    def __init__(self, find: Callable[[str], FakeAgent | None], *, has_names: bool = False) -> None:
        self._find = find
        self._has_names = has_names
        self._port = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; on the same port as before when it was stopped."""
        self._server = _Server(("127.0.0.1", self._port), self._find, has_names=self._has_names)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fake-agent", daemon=True).start()

    def stop(self) -> None:
        """Take no connection any more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], find: Callable[[str], FakeAgent | None], *, has_names: bool) -> None:
        self.find = find
        self.has_names = has_names
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes; without this the second waits 40 ms
    server: _Server

    def do_GET(self) -> None:
        found = self._agent_and_path()
        if found is None:
            return
        agent, path, query = found
        match path:
            case ["guests"]:
                self._answer(200, list(agent.guests.values()) or None)
            case ["guests", id]:
                guest = agent.guests.get(id)
                self._answer(200, guest) if guest else self._unknown("guest", id)
            case ["guests", id, "console"] if id in agent.consoles:
                self._answer_console(agent.consoles[id], query)
            case ["guests", id, "jobs"]:
                self._answer(200, [_shown(job) for job in agent.jobs_of(id)])
            case ["jobs", id]:
                job = agent.job(id, float(query.get("wait_s", ["0"])[0]))
                self._answer(200, _shown(job)) if job else self._unknown("job", id)
            case _:
                self._unknown("path", self.path)

    def _answer_console(self, written: bytes, query: dict[str, list[str]]) -> None:
        limit = int(query["limit_bytes"][0])
        start = int(query["since"][0]) if "since" in query else max(0, len(written) - limit)
        content = written[start : start + limit]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Console-End", str(start + len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        if len(data) < length:  # who asked was killed in the middle of it
            self.close_connection = True
            return
        body = json.loads(data) if data else {}
        request_id = self.headers.get("X-Request-ID", "")
        found = self._agent_and_path(Asked("POST", self.path, body, request_id))
        if found is None:
            return
        agent, path, _ = found
        if agent.is_put_off(path, body, request_id):
            self.close_connection = True
            return
        self._answer(*agent.post(path, body, request_id))

    def _agent_and_path(self, asked: Asked | None = None) -> tuple[FakeAgent, list[str], dict[str, list[str]]] | None:
        """Who is asked for what; None when that is settled already."""
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        name = parts.pop(0) if self.server.has_names else ""
        agent = self.server.find(name)
        if agent is None:
            self._unknown("agent", name)
            return None
        if not agent.is_up:
            self.close_connection = True
            return None
        if asked is not None:
            agent.note(asked)
        agent.wait_while_hanging()
        if agent.answers_garbage:
            self._answer(200 if asked is None else 202, "<html>It works!</html>")
            return None
        return agent, parts, parse_qs(url.query)

    def _unknown(self, kind: str, id: str) -> None:
        self._answer(*_not_found(kind, id))

    def _answer(self, status: int, content: Any, job: JSONObject | None = None) -> None:
        data = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if job is not None:
            self.send_header("X-Guest-Job-ID", job["ID"])
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `requests` is the record."""


def _not_found(kind: str, id: str) -> Answer:
    return 404, {"message": f"{kind} {id!r} does not exist", "code": 404}, None


def _shown(job: JSONObject) -> JSONObject:
    return {name: value for name, value in job.items() if not name.startswith("_")}
