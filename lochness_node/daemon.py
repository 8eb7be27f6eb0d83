"""How does a node's daemon live: started, ready, watched, reloaded, stopped?

    return run_daemons([heartbeat], log=log)

The main thread only listens, to signals and to its pass loops, and speaks to systemd; the passes run on threads of
their own (`lochness_node.pass_loop`), so that a store call of seconds delays neither SIGTERM nor a sign of life.

Invariants:
1. READY=1 is sent once every daemon has had a good pass, not before.
2. WATCHDOG=1 is sent every half of WATCHDOG_USEC while each pass that runs is younger than that: a failing store does
   not stop it, a pass that is stuck does, and systemd acts 1 to 1.5 times WatchdogSec after that pass began.
3. SIGTERM or SIGINT ends `run_daemons` within `STOP_LIMIT_S` plus one short send, with 0, also during a blocking pass.
4. No signal handler does anything; the signal's number arrives at the one wait through `signal.set_wakeup_fd`.

Not guaranteed: that `Daemon.stop` was called: not when a pass did not end in time.
"""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Final

from lochness import events
from lochness.log import Logger, get_logger
from lochness.metrics import OFF, MetricsServer, Source
from lochness.systemd_notify import SystemdNotifier
from lochness_node.pass_loop import Daemon, PassLoop, PassReport, Waker

__all__ = ["Daemon", "PassReport", "Waker", "run_daemon", "run_daemons"]

STOP_LIMIT_S: Final = 0.7
_STOPPING_SEND_LIMIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 30.0
_RETELL_S: Final = 1.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NEWS: Final = b"\0"  # no signal has this number


def run_daemon(daemon: Daemon, *, notifier: SystemdNotifier | None = None, random: Random | None = None) -> int:
    """`run_daemons` for one."""
    return run_daemons([daemon], notifier=notifier, random=random)


def run_daemons(
    daemons: Sequence[Daemon],
    *,
    notifier: SystemdNotifier | None = None,
    random: Random | None = None,
    metrics_listen: str = OFF,
) -> int:
    """Run `daemons` until SIGTERM or SIGINT; answers the process's exit code. `metrics_listen`: see lochness.metrics.

    Call it on the main thread, as the last thing the process does: the signals stay ours.

    0 after a signal, 78 when a daemon raised ConfigurationError, 1 when a loop ended that should not have.
    """
    log = get_logger("+".join(daemon.name for daemon in daemons))
    listener, speaker = _listen()
    supervisor = _Supervisor(daemons, listener, speaker, notifier or SystemdNotifier(), random or Random(), log)
    MetricsServer(metrics_listen, supervisor.figure_sources)
    return supervisor.run()


def _listen() -> tuple[socket.socket, socket.socket]:
    """A socket on which our signals arrive as bytes, and its other end.

    Both stay as they are until the process ends: a loop left behind may still speak, and a second SIGTERM during the
    end must not turn exit code 0 into a death by signal.
    """
    listener, speaker = socket.socketpair()
    listener.setblocking(False)
    speaker.setblocking(False)
    signal.set_wakeup_fd(speaker.fileno(), warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: None)
    return listener, speaker


class _Supervisor:
    """The main thread's side: one wait, and what follows from what it heard."""

    def __init__(
        self,
        daemons: Sequence[Daemon],
        listener: socket.socket,
        speaker: socket.socket,
        notifier: SystemdNotifier,
        random: Random,
        log: Logger,
    ) -> None:
        self._listener = listener
        self._speaker = speaker
        self._notifier = notifier
        self._log = log
        self._loops = [
            PassLoop(daemon, log=get_logger(daemon.name), random=random, on_news=self._news) for daemon in daemons
        ]
        self._is_ready = False
        self._reloads: dict[PassLoop, int] = {}  # what each must reach until systemd is told READY again
        self._is_told = True
        self._told_status = ""
        self._next_watchdog_s = time.monotonic()

    @property
    def figure_sources(self) -> list[Source]:
        """What each loop and its daemon tell Prometheus."""
        return [loop.figures for loop in self._loops]

    def run(self) -> int:
        self._log.info(events.DAEMON_STARTED)
        for loop in self._loops:
            loop.start()
        while True:
            for number in self._heard():
                if number == signal.SIGHUP:
                    self._begin_reload()
                else:
                    return self._stop(f"signal {signal.Signals(number).name}", 0)
            for loop in self._loops:
                if loop.misconfigured is not None:
                    self._log.error(events.DAEMON_MISCONFIGURED, daemon=loop.daemon.name, error=str(loop.misconfigured))
                    return self._stop("configuration", loop.misconfigured.EXIT_CODE)
                if loop.has_ended:
                    return self._stop(f"the passes of {loop.daemon.name} ended", 1)
            self._is_told = self._tell_systemd()

    def _news(self) -> None:
        with suppress(BlockingIOError):  # full: the main thread has enough to read already
            self._speaker.send(_NEWS)

    def _heard(self) -> list[int]:
        """The one wait: signals that arrived, at the latest when systemd is to be told something."""
        wait_s = _LONGEST_WAIT_S if self._is_told else _RETELL_S
        if self._notifier.watchdog_s is not None:
            wait_s = min(wait_s, self._next_watchdog_s - time.monotonic())
        select.select([self._listener], [], [], max(0.0, wait_s))
        try:
            return [number for number in self._listener.recv(4096) if number in _SIGNALS]
        except BlockingIOError:
            return []

    def _begin_reload(self) -> None:
        if self._is_ready:
            self._notifier.reloading()
        self._reloads = {loop: loop.ask_reload() for loop in self._loops}

    def _tell_systemd(self) -> bool:
        """Whether systemd has been told all it must know. Gives up at the first send that fails: each costs time."""
        return self._tell_life() and self._tell_ready() and self._tell_reloaded() and self._tell_status()

    def _tell_life(self) -> bool:
        watchdog_s, now_s = self._notifier.watchdog_s, time.monotonic()
        if watchdog_s is None or now_s < self._next_watchdog_s:
            return True
        started_s = [loop.busy_since_s for loop in self._loops]
        if any(each is not None and now_s - each >= watchdog_s / 2 for each in started_s):
            self._next_watchdog_s = now_s + watchdog_s / 10
            return True
        delivered = self._notifier.watchdog()
        self._next_watchdog_s = now_s + (watchdog_s / 2 if delivered else watchdog_s / 10)
        return delivered

    def _tell_ready(self) -> bool:
        if self._is_ready or not all(loop.has_succeeded for loop in self._loops):
            return True
        self._is_ready = self._notifier.ready()
        if self._is_ready:
            self._log.info(events.DAEMON_READY)
        return self._is_ready

    def _tell_reloaded(self) -> bool:
        if not self._reloads or any(loop.reloads_done < asked for loop, asked in self._reloads.items()):
            return True
        if self._is_ready and not self._notifier.ready():
            return False
        self._reloads = {}
        return True

    def _tell_status(self) -> bool:
        status = self._status()
        if status == self._told_status:
            return True
        if not self._notifier.status(status):
            return False
        self._told_status = status
        return True

    def _status(self) -> str:
        if len(self._loops) == 1:
            return self._loops[0].status
        return "; ".join(f"{loop.daemon.name}: {loop.status}" for loop in self._loops)

    def _stop(self, why: str, exit_code: int) -> int:
        deadline_s = time.monotonic() + STOP_LIMIT_S
        for loop in self._loops:
            loop.ask_stop()
        self._notifier.stopping(limit_s=_STOPPING_SEND_LIMIT_S)
        left_behind = [loop.daemon.name for loop in self._loops if not loop.join(deadline_s - time.monotonic())]
        self._log.info(events.DAEMON_STOPPED, why=why, exit_code=exit_code, left_behind=left_behind)
        return exit_code
