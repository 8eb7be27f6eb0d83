"""A controller process to measure, and clients that cost it and this machine as little as clients can."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from lochness_lab.etcd import free_ports
from lochness_lab.processes import Process
from lochness_lab.waiting import wait_until

START_LIMIT_S: Final = 60.0
REQUEST_LIMIT_S: Final = 30.0
PIECE_BYTES: Final = 256 << 10
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@contextmanager
def controller(directory: Path, etcd_url: str, *flags: str) -> Iterator[str]:
    """The URL of a `lochness-controller` that is ready."""
    port = free_ports(1)[0]
    words = ["--etcd", etcd_url, "--listen", f"127.0.0.1:{port}", *flags]
    process = Process.start(
        [sys.executable, "-m", "lochness_controller", *words], log=directory / "controller.log", name="controller"
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _is_ready(url), limit_s=START_LIMIT_S, what="a controller that is ready")
        yield url
    finally:
        process.kill()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


class Connection:
    """One keep-alive connection. Answers are read whole, their bodies not looked at."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=64 << 20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes, float]:
        """The status, the body, and how long it took, in ms, to the body's last byte.

        Of a long body only the first piece is kept: to put it together would hold up the clock of others beside it.
        """
        started_s = time.perf_counter()
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        async with asyncio.timeout(REQUEST_LIMIT_S):
            answer = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(answer)
            left = int(length[1]) if length else 0
            content = await self._reader.readexactly(min(left, PIECE_BYTES))
            while left := left - min(left, PIECE_BYTES):
                await self._reader.readexactly(min(left, PIECE_BYTES))
        return int(answer[9:12]), content, (time.perf_counter() - started_s) * 1000


def percentile(values: list[float], percent: float) -> float:
    """The value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
