"""How does the laboratory run a command of the real machine? With a limit, and an error that ends with its words.

Programs that may outlive us are started here too, so that those that end before us are reaped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lochness.errors import DeadlineError, UnavailableError
from lochness_lab import processes

_STARTED: Final[list[subprocess.Popen[bytes]]] = []


def run(argv: Sequence[str], *, limit_s: float, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command. Raises UnavailableError when it fails and `is_checked`, DeadlineError after `limit_s`."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([environment.get("PATH", "/usr/bin:/bin"), *processes.SBIN])
    title = " ".join(argv[-4:])
    try:
        done = processes.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=limit_s,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us, who know what to clean up
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(f"{title} took over {limit_s:g} s") from error
    if is_checked and done.returncode != 0:
        raise UnavailableError(f"{title}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done


def start(argv: Sequence[str], log: Path, *, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a program that may outlive us, its output appended to `log`."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=cwd
        )
    _STARTED.append(started)
    return started


def reap() -> None:
    """Take note of the end of those that `start` started."""
    _STARTED[:] = [started for started in _STARTED if started.poll() is None]
