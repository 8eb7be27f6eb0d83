"""How is a process started, watched and ended so that it never outlives the one who started it?

1. The kernel kills the process when the thread that started it ends (PR_SET_PDEATHSIG), so also when we are SIGKILLed.
   Start from a thread that lives as long as the process is needed.
2. Signals reach the process itself, also inside a machine's pid namespace, where it is the child of our nsenter.
3. Its output goes to a log file, and every error about the process ends with the log's last lines.
4. stop() and kill() return only when the process is gone and reaped.
5. A signal whose handler raises (Ctrl-C) never loses a process that is just being started: it is handled when the
   process has an owner.

Children of the process are not followed: a machine (machine.py) is what ends a whole tree.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from lochness.errors import ConfigurationError, DeadlineError, UnavailableError
from lochness_lab.waiting import wait_until

T = TypeVar("T")

#: Dies with the thread that started it; exec keeps the pid.
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
# setpriv comes too late for a parent that has died since the fork; then we have another parent by now.
_IF_PARENT_LIVES = ("sh", "-c", '[ "$PPID" = "$0" ] || exit 1; exec "$@"')
LOG_TAIL_LINES = 30
KILL_LIMIT_S: Final = 10
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_program(name: str) -> str | None:
    """The program's path: from PATH, else from the directories of root's PATH. None when it is not installed."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(SBIN))


def require_program(name: str, package: str) -> str:
    """As find_program, but raises ConfigurationError naming the Debian package when it is not installed."""
    path = find_program(name)
    if path is None:
        raise ConfigurationError(f"{name} is not installed (Debian package {package})")
    return path


def die_with_us(by: signal.Signals = signal.SIGKILL) -> list[str]:
    """What goes in front of a command so that the kernel ends it when our thread ends, even if that is right now.

    `by` is the signal that it gets: one that can be caught leaves it time to clean up.
    """
    return ["setpriv", "--pdeathsig", by.name.removeprefix("SIG"), "--", *_IF_PARENT_LIVES, str(os.getpid())]


def process_state(pid: int) -> str:
    """The kernel's letter for the process ("S" sleeping, "T" stopped, "Z" zombie ...), "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def first_child(pid: int) -> int:
    """The pid of the process's eldest child, 0 when it has none or is gone itself."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0
    return 0


def kill_with_child(starter: subprocess.Popen[Any]) -> None:
    """SIGKILL the child of a starter that forks once and waits (nsenter), which then reaps it and ends; else itself.

    The child goes first: as an orphan it would be left to pid 1. Either may have ended by itself a moment ago.
    """
    if starter.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first_child(starter.pid) or starter.pid, signal.SIGKILL)


class _HeldSignals:
    """The handlers of the signals that end us, held back while a process is started. Of use in the main thread only.

    subprocess.Popen forks long before it returns: an exception out of a handler in between leaves a child that nobody
    knows of.
    """

    _NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._arrived: list[int] = []
        self._handlers: dict[int, Any] = {}

    def hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python runs handlers in the main thread only
        for number in self._NUMBERS:
            if callable(handler := signal.getsignal(number)):  # the others are the kernel's to obey
                self._handlers[number] = handler
                signal.signal(number, lambda arrived, _frame: self._arrived.append(arrived))

    def release(self) -> None:
        """Let the handlers run for what has arrived; they may raise. A second release does nothing."""
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)
        if self._arrived:
            arrived = self._arrived[0]
            self._arrived.clear()
            signal.raise_signal(arrived)


@contextmanager
def child(argv: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start `argv` with the options of subprocess.Popen; however the block is left, the process is gone and reaped."""
    signals = _HeldSignals()
    signals.hold()
    try:
        process = subprocess.Popen(list(map(str, argv)), **options)
        try:
            signals.release()
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            process.__exit__(None, None, None)  # close its pipes, and wait: not for a quarter of a second as on Ctrl-C
    finally:
        signals.release()


def run(argv: Sequence[str | Path], *, timeout: float, **options: Any) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run without `check`, but also on Ctrl-C it leaves no process. Raises subprocess.TimeoutExpired."""
    with child(argv, **options) as process:
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class Process:
    """A running process with its log. Use `Process.start`, or `Machine.start` for one inside a machine."""

    def __init__(self, name: str, starter: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self.name = name
        #: The process itself, as this machine numbers it, also when it lives in another pid namespace.
        self.pid = pid
        self.log = log
        self._starter = starter  # the process itself, or the nsenter that waits for it and hands on how it ended

    @classmethod
    def start(
        cls,
        argv: Sequence[str | Path],
        *,
        log: Path,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        enter: Sequence[str] = (),
        holds_stdin: bool = False,
    ) -> Process:
        """Start `argv`, its output appended to `log`. `env` is the whole environment, None hands on our own.

        `enter` is a command in front that forks once and waits, such as nsenter with a pid namespace. With
        `holds_stdin` its standard input is a pipe that ends when we end or it is stopped, else it is empty.
        Raises UnavailableError when it ends before it is itself.
        """
        command = [*die_with_us(), *enter, *(DIE_WITH_PARENT if enter else ()), *map(str, argv)]
        name = name or Path(argv[0]).name
        log.parent.mkdir(parents=True, exist_ok=True)
        signals = _HeldSignals()
        signals.hold()
        try:
            with log.open("ab") as output:
                starter = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if holds_stdin else subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    start_new_session=True,
                )
            process = cls(name, starter, starter.pid, log)
            try:
                signals.release()
                if enter:
                    process.pid = process.wait_until(
                        lambda: first_child(starter.pid), limit_s=10, what=f"{name} in its namespaces"
                    )
            except BaseException:
                process.kill()
                raise
        finally:
            signals.release()
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        return self._starter.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal's number when a signal ended it, None while it runs."""
        return self._starter.poll()

    def wait(self, limit_s: float) -> int:
        """The exit status, as soon as the process has ended. Raises DeadlineError after `limit_s` seconds."""
        try:
            return self._starter.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"{self.name} (pid {self.pid}) still runs after {limit_s:g} s{self._tail()}") from error

    def wait_until(self, condition: Callable[[], T], *, limit_s: float, what: str) -> T:
        """As waiting.wait_until, but raises UnavailableError as soon as the process has ended."""

        def condition_of_a_living_process() -> T:
            is_running = self.is_running  # asked first: what it did before it ended counts
            value = condition()
            if not value and not is_running:
                raise UnavailableError(f"{self.name} ended with status {self.returncode}, no {what}{self._tail()}")
            return value

        try:
            return wait_until(condition_of_a_living_process, limit_s=limit_s, what=what)
        except DeadlineError as error:
            raise DeadlineError(f"{error.message}{self._tail()}") from error

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself; nothing happens when it has ended."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP; returns when the process stands still."""
        self.signal(signal.SIGSTOP)
        # nsenter stops itself after its child; wait for both, or its stop could come after our thaw.
        self.wait_until(lambda: self._states() == {"T"}, limit_s=5, what=f"standstill of {self.name}")

    def thaw(self) -> None:
        """SIGCONT; returns when the process is no longer stopped."""

        def is_thawed() -> bool:
            self._continue()
            return "T" not in self._states()

        self.wait_until(is_thawed, limit_s=5, what=f"thawing of {self.name}")

    def _states(self) -> set[str]:
        return {process_state(pid) for pid in (self.pid, self._starter.pid)}

    def _continue(self) -> None:
        for pid in {self.pid, self._starter.pid}:
            if self.is_running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self, limit_s: float = 10) -> int:
        """SIGTERM, after `limit_s` seconds SIGKILL. The exit status: -9 tells that it took the second."""
        self.signal(signal.SIGTERM)
        self._continue()  # a frozen process takes its SIGTERM only when it runs again
        try:
            return self._reap(limit_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL. The exit status."""
        self.signal(signal.SIGKILL)
        self._continue()
        try:
            return self._reap(KILL_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._starter.kill()  # an nsenter whose child is stuck in the kernel
            return self._reap(KILL_LIMIT_S)

    def _reap(self, limit_s: float) -> int:
        status = self._starter.wait(limit_s)
        if self._starter.stdin is not None:
            self._starter.stdin.close()
        return status

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the process's output."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _tail(self) -> str:
        tail = self.log_tail()
        return f"; the end of {self.log}:\n{tail}" if tail else f"; {self.log} is empty"
