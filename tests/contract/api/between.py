"""What stands between a client and the controller, and can act at a chosen moment or lose an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass(frozen=True, slots=True)
class Passing:
    """One request on its way to the controller."""

    method: str
    path: str
    headers: dict[str, str]


@contextmanager
def between(url: str, before: Callable[[Passing], bool]) -> Iterator[str]:
    """Forward requests to the controller at `url`; yields where. `before` sees each one first, and says whether its
    answer, once the controller has given it, is to be lost."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            is_lost = before(Passing(self.command, self.path, headers))
            sent = {name: value for name, value in headers.items() if name not in ("host", "content-length")}
            with httpx.Client(trust_env=False, timeout=30) as client:
                answer = client.request(self.command, f"{url}{self.path}", content=body, headers=sent)
            self.close_connection = is_lost
            if is_lost:
                return
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in ("content-length", "content-encoding", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = forward

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
