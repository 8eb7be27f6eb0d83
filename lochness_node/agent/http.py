"""How is the application served, watched and ended, beside whatever else the process does?

1. The server's event loop has a daemon thread of its own; nothing on it holds up the end of the process.
2. It installs no signal handler and no logging of its own.
3. `stop` ends within its limit, with or without the help of those who still wait for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from typing import Final

import uvicorn
from litestar.types import ASGIApp

from lochness.errors import DeadlineError, UnavailableError
from lochness.http_connection import Connection

#: Requests at a time; more are answered 503.
REQUESTS_MAX: Final = 512
_IDLE_CONNECTION_S: Final = 75
_TICK_S: Final = 1.0


class _Server(uvicorn.Server):
    """uvicorn's looks ten times a second whether it is to end, a quarter of an idle agent's work. Ours is told."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    def end(self) -> None:
        """On the event loop, after `should_exit` was set."""
        self._end.set()

    async def main_loop(self) -> None:
        while not self.should_exit:
            await self.on_tick(0)  # the time for its Date header
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), _TICK_S)


class HttpServer:
    """Serves `app` on `listener`, which it takes over, by https with `tls`. Begins with `start`."""

    def __init__(self, app: ASGIApp, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=REQUESTS_MAX,
            timeout_keep_alive=_IDLE_CONNECTION_S,
        )
        config.load()
        config.ssl = tls
        # What it says on each start, end and overload; our own events say that.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server = _Server(config)
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_serving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent-http", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._is_serving.wait(5)

    def check(self, limit_s: float) -> None:
        """Raise DeadlineError unless the event loop answers within `limit_s`, UnavailableError when it has ended."""
        answered = threading.Event()
        if self._loop is None or not self._thread.is_alive():
            raise UnavailableError("the HTTP server has ended")
        with contextlib.suppress(RuntimeError):  # closed just now
            self._loop.call_soon_threadsafe(answered.set)
        if not answered.wait(limit_s):
            raise DeadlineError(f"the HTTP server's loop did not answer within {limit_s:g} s")

    def stop(self, limit_s: float) -> bool:
        """Take no more requests and end; False when some request is still being answered after `limit_s`."""
        self._server.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed just now
                self._loop.call_soon_threadsafe(self._server.end)
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._is_serving.set)
        await self._server.serve(sockets=[self._listener])
