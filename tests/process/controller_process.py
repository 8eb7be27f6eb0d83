"""A real `lochness-controller` process, its systemd socket, and what it logged."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lochness_lab.processes import Process
from lochness_lab.waiting import wait_until

START_LIMIT_S = 60.0  # a second alone; a machine that is busy, and compiles all it imports, takes twenty


class NotifySocket:
    """The socket that systemd would give; remembers what was sent to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._messages: list[str] = []

    def messages(self) -> list[str]:
        """Everything so far, oldest first."""
        while True:
            try:
                self._messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return list(self._messages)

    def close(self) -> None:
        self._socket.close()


class ControllerProcess:
    """`python -m lochness_controller` on a free port. A context manager, or start() and stop()."""

    def __init__(self, directory: Path, etcd_url: str, *arguments: str, **environment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.notified = NotifySocket(directory / "notify")
        self._arguments = ["--etcd", etcd_url, *(arguments or ("--listen", "127.0.0.1:0"))]
        self._environment = environment
        self._starts = 0
        self.process: Process | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
        self.notified.close()

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    def start(self) -> None:
        """Start it and wait until it listens; a second start is a new process with a new port."""
        self._starts += 1
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.notified.path), **self._environment}
        self.process = Process.start(
            [sys.executable, "-m", "lochness_controller", *self._arguments],
            log=self.directory / f"controller-{self._starts}.log",
            name="lochness-controller",
            env=environment,
        )
        self.running.wait_until(lambda: self.urls, limit_s=START_LIMIT_S, what="listening controller")

    def wait_ready(self) -> None:
        self.running.wait_until(
            lambda: "READY=1" in self.notified.messages(), limit_s=START_LIMIT_S, what="READY from the controller"
        )

    @property
    def urls(self) -> list[str]:
        """Where it listens."""
        return [f"http://{entry['address']}" for entry in self.logged("controller.listening")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The entries of this name that the running process has logged."""
        if not self.running.log.exists():
            return []
        lines = self.running.log.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [entry for entry in entries if entry.get("event") == event]


def wait_logged(controller: ControllerProcess, event: str, limit_s: float = 15) -> None:
    wait_until(lambda: controller.logged(event), limit_s=limit_s, what=f"{event} in the log")
