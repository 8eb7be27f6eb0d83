"""How does one learn that a service has begun its work? As systemd does: it says READY=1 on a socket.

A thread takes whatever else the service sends: a socket that nobody reads would make it wait.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from lochness_lab.processes import Process


class Readiness:
    """The socket at `path` for one service; give it `environment`. A context manager, or close()."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"readiness {path.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """What tells the service where to say it."""
        return {"NOTIFY_SOCKET": str(self._path)}

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    def wait(self, process: Process, limit_s: float) -> None:
        """Return when `process` is ready. Raises UnavailableError when it ends before, DeadlineError."""
        process.wait_until(self._ready.is_set, limit_s=limit_s, what=f"READY from {process.name}")

    def close(self) -> None:
        """Listen no more; the service's words go nowhere then."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            return  # closed already
        self._thread.join()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            if b"READY=1" in message.split(b"\n"):
                self._ready.set()
