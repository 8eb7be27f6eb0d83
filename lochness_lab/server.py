"""What can be done to any server of the laboratory: end it, kill it, freeze it, and look at what it logged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from lochness.errors import UnavailableError
from lochness_lab.processes import Process


class Server(ABC):
    """One process that can be started again. A context manager, or start() and stop()."""

    #: For messages.
    what = "the server"

    def __init__(self) -> None:
        self._process: Process | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers, within a limit."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """As the real machine numbers it. Raises UnavailableError while it is down."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def stop(self) -> None:
        """SIGTERM and wait; fine when it is down already."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """SIGKILL and wait: it gets no chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it again with what it has on disk, at the same address."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._running().freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().thaw()

    def log_tail(self, lines: int = 30) -> str:
        """The end of its log, "" when it never ran."""
        return self._process.log_tail(lines) if self._process else ""

    def _running(self) -> Process:
        if self._process is None or not self._process.is_running:
            raise UnavailableError(f"{self.what} is not running")
        return self._process
