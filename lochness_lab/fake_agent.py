"""What does an agent look like to the controller? WIRE.md section 6 over HTTP, in memory, that fails on demand.

1. It speaks what WIRE.md says and, with `waits`, `?wait_s=`; with `tells_requests` its jobs carry their RequestID.
2. `hold` keeps jobs from ending until `release`; `fail_next` lets the next job of an action end in an error.
3. Everything that was asked of it is in `requests`, in order.

It makes no disks and no domains. A guest that is created twice is the same guest.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

JSONObject = dict[str, Any]

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


class FakeAgent:
    """An agent on a port of its own. A context manager, or start() and stop(); a restart keeps port and state."""

    def __init__(self, *, waits: bool = True, tells_requests: bool = True) -> None:
        self.waits = waits
        self.tells_requests = tells_requests
        self._state = _State()
        self._changed = threading.Condition()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

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
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fake-agent", daemon=True).start()

    def stop(self) -> None:
        """Be not reachable; requests that wait are answered at once."""
        server, self._server = self._server, None
        with self._changed:
            self._changed.notify_all()
        if server is not None:
            server.shutdown()
            server.server_close()

    @property
    def is_up(self) -> bool:
        return self._server is not None

    def hold(self, *actions: str) -> None:
        """Jobs of these actions ("fetchImage", "create", "delete" ...) stay Running until `release`."""
        with self._changed:
            self._state.held |= set(actions)

    def release(self) -> None:
        """Let every held job end, and later ones at once."""
        with self._changed:
            self._state.held.clear()
            for job in self._state.jobs.values():
                if job["Status"] == "Running":
                    self._end(job)
            self._changed.notify_all()

    def fail_next(self, action: str, message: str, reason: str = "") -> None:
        """The next job of this action ends in an error with this message and, unless "", this Reason."""
        with self._changed:
            self._state.failures[action] = {"Message": message, **({"Reason": reason} if reason else {})}

    def forget_jobs(self) -> None:
        """Know no job any more, as after a restart without a journal."""
        with self._changed:
            self._state.jobs.clear()
            self._changed.notify_all()

    # What the request handler calls.

    def note(self, asked: Asked) -> None:
        with self._changed:
            self._state.requests.append(asked)

    def queue(self, action: str, guest_id: str, subject: JSONObject, request_id: str) -> JSONObject:
        """A job, ended already unless jobs of its action are held."""
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
        }
        with self._changed:
            self._state.jobs[job["ID"]] = job
            if action not in self._state.held:
                self._end(job)
        return job

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
                job = self._state.jobs.get(id)
                remaining_s = deadline_s - time.monotonic()
                if job is None or job["Status"] != "Running" or remaining_s <= 0 or not self.is_up:
                    return dict(job) if job else None
                self._changed.wait(remaining_s)

    def jobs_of(self, guest_id: str) -> list[JSONObject]:
        with self._changed:
            return [dict(job) for job in reversed(self._state.jobs.values()) if job["GuestID"] == guest_id]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], agent: FakeAgent) -> None:
        self.agent = agent
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes; without this the second waits 40 ms
    server: _Server

    def do_GET(self) -> None:
        agent = self.server.agent
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        match url.path.strip("/").split("/"):
            case ["guests"]:
                self._answer(200, list(agent.guests.values()))
            case ["guests", id]:
                guest = agent.guests.get(id)
                self._answer(200, guest) if guest else self._unknown("guest", id)
            case ["guests", id, "jobs"]:
                self._answer(200, [_shown(job) for job in agent.jobs_of(id)])
            case ["jobs", id]:
                job = agent.job(id, float(query.get("wait_s", ["0"])[0]))
                self._answer(200, _shown(job)) if job else self._unknown("job", id)
            case _:
                self._unknown("path", url.path)

    def do_POST(self) -> None:
        agent = self.server.agent
        if not agent.is_up:
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        request_id = self.headers.get("X-Request-ID", "")
        agent.note(Asked("POST", self.path, body, request_id))
        match self.path.strip("/").split("/"):
            case ["images"]:
                job = agent.queue("fetchImage", "agent", body, request_id)
                self._answer(202, {"id": body["id"], "type": body["type"], "size": 0, "status": "pending"}, job)
            case ["guests"]:
                job = agent.queue("create", body["id"], body, request_id)
                self._answer(202, body, job)
            case ["guests", id, action] if action in ACTIONS:
                guest = agent.guests.get(id)
                if guest is None:
                    self._unknown("guest", id)
                else:
                    self._answer(202, guest, agent.queue(action, id, guest, request_id))
            case _:
                self._unknown("path", self.path)

    def _unknown(self, kind: str, id: str) -> None:
        self._answer(404, {"message": f"{kind} {id!r} does not exist", "code": 404})

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


def _shown(job: JSONObject) -> JSONObject:
    return {name: value for name, value in job.items() if not name.startswith("_")}
