"""How do benchmarks run a controller? As a process of its own, on a free port of loopback."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Final

from lochness_lab.etcd import free_ports
from lochness_lab.processes import Process

#: A second alone; beside much else on two cores a start has taken over a minute, and that is not what is measured.
START_LIMIT_S: Final = 300.0


class Controller:
    """A `lochness-controller` on a port of its own, started again and again, with `settings` of controller.toml."""

    def __init__(self, directory: Path, etcd_url: str, **settings: float) -> None:
        self._directory = directory
        self._etcd_url = etcd_url
        self._port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self._port}"
        self._settings = settings
        self._process: Process | None = None

    def start(self) -> None:
        config = self._directory / "controller.toml"
        config.write_text("".join(f"{name} = {value}\n" for name, value in self._settings.items()))
        command = [sys.executable, "-m", "lochness_controller", "--config", str(config), "--log-level", "warning"]
        self._process = Process.start(
            [*command, "--etcd", self._etcd_url, "--listen", f"127.0.0.1:{self._port}"],
            log=self._directory / f"controller-{self._port}.log",
            name="lochness-controller",
        )
        self._process.wait_until(self._is_listening, limit_s=START_LIMIT_S, what="listening controller")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    @property
    def cpu_s(self) -> float:
        """What the process has had of the processors so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_max_mb(self) -> float:
        """The most memory that the process has had at once (VmHWM), in 10^6 bytes."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
