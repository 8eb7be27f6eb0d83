"""A controller made of dictionaries, as far as the command line can tell, and servers that are no controller."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: Status, body, headers.
Answer = tuple[int, object, dict[str, str]]

COLLECTIONS = (
    "hypervisors", "guests", "networks", "subnets", "flavors", "images", "fwgroups", "jobs", "vlans/tags",
    "vlans/groups", "tokens",
)  # fmt: skip
JOB_ID = "0f0e0d0c-0000-4000-8000-00000000000a"


class FakeController:
    """`objects[collection][id]` is its state; `job_states` are the answers about a job, one after another.

    With a `token` it answers nobody who does not bring it.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict]] = {name: {} for name in COLLECTIONS}
        self.parts: dict[str, dict[str, str]] = {}
        self.job_states: list[dict] = [{"status": "done", "action": "create"}]
        #: What is answered at other paths: of "GET /capacity", or a function of the body.
        self.answers: dict[str, object] = {}
        self.settings: dict[str, str] = {}
        self.token = ""
        self.url = ""

    def add(self, collection: str, name: str = "", **fields) -> str:
        id = str(uuid.uuid4())
        self.objects[collection][id] = {"id": id, "metadata": {"name": name} if name else {}, **fields}
        return id

    def answer(self, method: str, path: str, body: dict) -> Answer:
        if f"{method} {path}" in self.answers:
            return 200, self.answers[f"{method} {path}"], {}
        if path == "/config":
            self.settings = {key: value for key, value in {**self.settings, **body}.items() if value}
            return 200, self.settings, {}
        collection, *rest = path.strip("/").replace("vlans/", "vlans%").split("/")
        collection = collection.replace("%", "/")
        if collection not in self.objects:
            return 404, {"message": f"there is nothing at {path}", "code": 404, "reason": "not_found"}, {}
        objects = self.objects[collection]
        if not rest:
            return self.answer_collection(method, collection, body)
        if collection == "jobs" and rest[1:] == ["cancel"]:
            return 202, {"id": rest[0], "status": "working", "cancel": True}, {}
        if collection == "jobs":
            state = self.job_states.pop(0) if len(self.job_states) > 1 else self.job_states[0]
            return 200, {"id": rest[0], **state}, {}
        if rest[0] not in objects:
            kind = collection[:-1]
            message = f"{kind} '{rest[0]}' does not exist"
            return 404, {"message": message, "code": 404, "reason": "not_found", "kind": kind, "id": rest[0]}, {}
        return self.answer_object(method, collection, rest, body)

    def answer_collection(self, method: str, collection: str, body: dict) -> Answer:
        if method == "GET":
            return 200, list(self.objects[collection].values()), {}
        if "refuse" in body.get("metadata", {}):
            return 400, {"message": "metadata.refuse is refused", "code": 400, "reason": "invalid"}, {}
        is_tag = collection == "vlans/tags"
        if collection == "tokens":
            token = {"id": str(uuid.uuid4()), **body}
            self.objects[collection][token["id"]] = token
            return 201, {**token, "token": "sesame"}, {}
        record = body if is_tag else {"id": str(uuid.uuid4()), "metadata": {}, **body}
        self.objects[collection][str(record["tag" if is_tag else "id"])] = record
        if collection == "guests":
            return 202, record, {"X-Guest-Job-ID": JOB_ID}
        return 201, record, {}

    def answer_object(self, method: str, collection: str, rest: list[str], body: dict) -> Answer:
        objects, id = self.objects[collection], rest[0]
        if collection == "guests" and (method == "DELETE" or len(rest) == 2):
            guest = objects.pop(id) if method == "DELETE" else objects[id]
            return 202, guest, {"X-Guest-Job-ID": JOB_ID}
        if len(rest) == 1:
            if method == "PATCH":
                objects[id].update(body)
            elif method == "DELETE" and self.parts.get(f"{id}/guests"):
                return 409, {"message": f"hypervisor {id} has 1 guest", "code": 409, "reason": "has_guests"}, {}
            return 200, objects.pop(id) if method == "DELETE" else objects[id], {}
        if method == "POST" and isinstance(body, list):
            self.parts[f"{id}/{rest[1]}"] = dict.fromkeys(body, "")
        part = self.parts.setdefault(f"{id}/{rest[1]}", {})
        if isinstance(body, list):
            body = {}
        if len(rest) == 3:
            if method == "DELETE":
                part.pop(rest[2])
            else:
                part[rest[2]] = ""
        part.update(body)
        for key in [key for key, value in part.items() if not value and rest[1] == "config"]:
            del part[key]
        is_array = rest[1] in ("guests", "groups", "tags") or collection == "networks"
        return 200, sorted(part) if is_array else part, {}


@contextmanager
def serving(controller: FakeController, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `controller` on a free port, by TLS if there is a context for it; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            given = self.headers.get("Authorization", "")
            if controller.token in ("", given.removeprefix("Bearer ")):
                status, value, headers = controller.answer(self.command, urlsplit(self.path).path, body)
            else:
                message = "this token is not known" if given else "a token is needed"
                status, value, headers = 401, {"message": message, "code": 401, "reason": "unauthorized"}, {}
            content = json.dumps(value).encode() + b"\n"
            self.send_response(status)
            for name, text in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **headers,
            }.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up, or does not speak TLS, is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    controller.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield controller.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def answering(talk: Callable[[socket.socket], object], asked: list[bytes] | None = None) -> Iterator[str]:
    """A server that reads the head of a request and then does `talk` to each connection; yields its URL.

    The heads come into `asked`.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            try:
                head = connection.recv(65536)
                if asked is not None:
                    asked.append(head)
                if talk(connection) is None:
                    connection.close()
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            connection.close()
        thread.join()


def http(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    """Answers one HTTP response with `body`."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


def hang_up(connection: socket.socket) -> None:
    """Closes the connection without a word."""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
