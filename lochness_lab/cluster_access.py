"""What does one ask of a running cluster: its commands, its store, its guests, whatever kind it is?

1. Commands run where the cluster is, with nothing of our environment that would configure them.
2. Every question has a limit; what fails raises with the command's own words.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lochness
from lochness import keys
from lochness.errors import DeadlineError, UnavailableError
from lochness_lab.etcd import EtcdServer
from lochness_lab.processes import run

CLI_LIMIT_S = 120.0
#: What a caller's shell may hold that would configure our processes.
_FOREIGN = ("LOCHNESS_", "HYPERVISOR_ID", "NOTIFY_SOCKET", "WATCHDOG_", "INVOCATION_ID", "JOURNAL_STREAM")
_CLI = "lochness.cli.main"


class ClusterAccess(ABC):
    """What a cluster answers. `server` is the controller's URL and `agent_url` the agent's, as its processes see them.

    Files of the cluster are below `directory`, guests' in `guest_dir`.
    """

    server: str
    agent_url: str
    directory: Path
    guest_dir: Path

    @property
    @abstractmethod
    def etcd(self) -> EtcdServer:
        """The store it stands on."""

    @property
    def etcd_urls(self) -> str:
        """What the processes of the cluster are told: the URLs of etcd's members."""
        return self.etcd.url

    @abstractmethod
    def _enter(self) -> list[str]:
        """The command in front of one that is to run where the cluster is."""

    @staticmethod
    def python(module: str, *words: str) -> list[str]:
        """The command line of a module of this checkout or installation."""
        return [sys.executable, "-m", module, *words]

    @staticmethod
    def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Our environment without what would configure the cluster's processes by accident."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        root = str(Path(lochness.__path__[0]).resolve().parent)
        clean["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [clean.get("PYTHONPATH")])])
        return clean | dict(more or {})

    def cli_command(self, *words: str) -> list[str]:
        """The command line that runs `lochness` where it reaches the controller."""
        return [*self._enter(), *self.python(_CLI, "--server", self.server, *words)]

    def cli(self, *words: str, limit_s: float = CLI_LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run `lochness` to its end, whatever that is. Raises DeadlineError."""
        return self._run(self.cli_command(*words), limit_s)

    def records(self, *words: str, limit_s: float = CLI_LIMIT_S) -> list[dict[str, Any]]:
        """Run `lochness -j` and answer the objects it printed. Raises UnavailableError when it fails, DeadlineError."""
        done = self.cli(*words, "-j", limit_s=limit_s)
        if done.returncode != 0:
            raise UnavailableError(f"lochness {' '.join(words)}: status {done.returncode}: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def record(self, *words: str) -> dict[str, Any]:
        """As `records` for exactly one."""
        (found,) = self.records(*words)
        return found

    def keys(self) -> dict[str, str]:
        """All keys of Loch Ness in the store, with their values."""
        done = self._run([*self._enter(), *self.python("lochness_lab.keyspace", self.etcd_urls)], CLI_LIMIT_S)
        if done.returncode != 0:
            raise UnavailableError(f"the keys cannot be read: {done.stderr.strip()}")
        return {item["key"]: item["value"] for item in map(json.loads, done.stdout.splitlines())}

    def etcd_status(self) -> dict[str, Any]:
        """What etcd says of itself: `dbSizeInUse` in bytes, as text, and more. Raises UnavailableError."""
        words = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], b'{}', timeout=5).read().decode())"
        url = f"{self.etcd.url}/v3/maintenance/status"
        done = self._run([*self._enter(), sys.executable, "-c", words, url], CLI_LIMIT_S)
        if done.returncode != 0:
            raise UnavailableError(f"etcd does not tell its status: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pings(self, address: str, limit_s: float = 5) -> bool:
        """Whether `address` answers a ping within `limit_s`."""
        words = ["ping", "-n", "-q", "-c", "1", "-W", str(max(1, int(limit_s))), address]
        return self._run([*self._enter(), *words], limit_s + 5).returncode == 0

    def console(self, guest_id: str) -> str:
        """What the guest has written to its console so far."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return (self.guest_dir / guest_id / "console.log").read_text(errors="replace")
        return ""

    def left_of(self, guest_id: str) -> list[str]:
        """What is there of a guest: keys, files, domains. Empty after a delete.

        But for its jobs, and the answers that are kept for those who ask once more: they tell what was.
        """
        history = ("lochness/jobs/", keys.REQUEST_PATH)
        found = [
            f"key {key}"
            for key, value in self.keys().items()
            if guest_id in key + value and not key.startswith(history)
        ]
        found += [f"file {path}" for path in self.guest_dir.rglob("*") if guest_id in str(path)]
        return found + [f"domain {domain}" for domain in self.domains() if domain == guest_id]

    def domains(self) -> list[str]:
        """The UUIDs of the domains that libvirt has."""
        words = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=5).read().decode())"
        done = self._run([*self._enter(), sys.executable, "-c", words, f"{self.agent_url}/guests"], CLI_LIMIT_S)
        if done.returncode != 0:
            raise UnavailableError(f"the agent does not list its guests: {done.stderr.strip()}")
        return [guest["id"] for guest in json.loads(done.stdout) or []]

    def write_wrapper(self) -> Path:
        """A script that runs `lochness` against this cluster from any terminal of this machine."""
        path = self.directory / "lochness"
        python_path = shlex.quote(self.environment()["PYTHONPATH"])
        command = shlex.join(self.cli_command())
        path.write_text(f'#!/bin/sh\nPYTHONPATH={python_path} exec {command} "$@"\n')
        path.chmod(0o755)
        return path

    def _run(self, argv: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
        try:
            return run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                timeout=limit_s,
                env=self.environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"{' '.join(argv)} took over {limit_s:g} s") from error
