"""How much may a client make a connection hold before anything is asked? Requests are parsed by httptools, in C.

Invariants:
1. A head (request line and headers) of more than HEAD_MAX_BYTES is refused with 431 and the connection closed; so is
   whatever else is as long and completes nothing: trailers, a chunk's extensions. No more than that and one reading of
   the socket is kept of it.
2. At most AHEAD_MAX requests wait behind the one that is being answered; a client that sends more is cut off.
3. A request of HTTP/1.1 without exactly one Host is refused with 400.
4. What comes after a body is no header: trailers are dropped.
5. A connection whose request has not come to its end UNREAD_LIMIT_S after its answer, or brings over UNREAD_MAX_BYTES
   more, is closed; what comes of it until then is dropped. One that wants another protocol is closed at once.
6. A connection on which no request begins is closed, see `lochness.http_connection`.

The parser alone has no limits: it collects a header for as long as it comes.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lochness.http_connection import close_when_unused

#: As much as h11 takes, and most servers more or less.
HEAD_MAX_BYTES: Final = 64 << 10
AHEAD_MAX: Final = 8
#: Clients send head and body one after the other: a body is on its way when the answer is not about it.
UNREAD_LIMIT_S: Final = 5.0
UNREAD_MAX_BYTES: Final = 64 << 10

_TOO_LARGE: Final = b"the request's head is larger than 64 KiB\n"
_NO_HOST: Final = b"a request of HTTP/1.1 has exactly one Host\n"


class Connection(HttpToolsProtocol):
    """uvicorn's protocol on httptools, with limits."""

    _incomplete_bytes = 0
    _is_refused = False
    _is_in_head = True
    _unread: asyncio.TimerHandle | None = None
    _unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        close_when_unused(self)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._incomplete_bytes += len(data)
        super().data_received(data)
        if self._incomplete_bytes > HEAD_MAX_BYTES:
            self._refuse(431, _TOO_LARGE)

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._incomplete_bytes = 0
        if self._is_refused:
            return
        hosts, size = 0, len(self.url)
        for name, value in self.headers:
            hosts += name == b"host"
            size += len(name) + len(value) + 4
        if size > HEAD_MAX_BYTES:
            self._refuse(431, _TOO_LARGE)
        elif hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._refuse(400, _NO_HOST)
        elif len(self.pipeline) >= AHEAD_MAX:
            self._is_refused = True
            self.transport.close()
        else:
            super().on_headers_complete()
            if self.parser.should_upgrade():
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._incomplete_bytes = 0
        if self._unread is not None:
            self._unread_bytes += len(body)
            if self._unread_bytes > UNREAD_MAX_BYTES:
                self.transport.close()
        elif not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._incomplete_bytes = 0
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._unread_bytes = 0
            self._unread = self.loop.call_later(UNREAD_LIMIT_S, self.transport.close)

    def _refuse(self, status: int, text: bytes) -> None:
        """Answer where nothing else is being answered, and close."""
        self._is_refused = True
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head % len(text) + text)
        self.transport.close()
