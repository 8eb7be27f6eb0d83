"""When does a daemon look at the world, and what becomes of a look that failed?

One thread per daemon runs its passes, one after the other; `lochness_node.daemon` starts these threads and speaks for
them.

Invariants:
1. Passes follow a fixed cadence of `interval_s`, each up to `JITTER` of it early, so that hosts do not fall into step;
   a point of it missed by a long pass is skipped, not made up for.
2. A wake is answered by a pass at once; wakes during a pass by one pass after it. After a failed pass, no sooner than
   `FIRST_BACKOFF_S`.
3. A failed pass is a pass: it is retried after a back-off that never exceeds `interval_s`.
4. A failure is logged once when it begins (and when it becomes another), its end once.

Not guaranteed: that a pass ends; a stuck one is seen by its `busy_since_s`, and systemd's watchdog acts on that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from lochness import events
from lochness.errors import ConfigurationError, LochnessError
from lochness.log import Logger
from lochness.metrics import DurationFigure, Durations, Figure

JITTER: Final = 0.1
FIRST_BACKOFF_S: Final = 0.5
#: What is older than this share of an interval is due at the cadence's pass. Below 1, as that comes up to JITTER early,
#: and twice that early after a late one.
FRESH_SHARE: Final = 1 - 2 * JITTER


class Waker:
    """Tells a daemon to look early. `wake` may be called from any thread and returns at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wake(self) -> None:
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a wake and take it; False when none came within `timeout_s`."""
        woken = self._event.wait(timeout_s)
        self._event.clear()
        return woken


@dataclass(frozen=True, slots=True)
class PassReport:
    """The outcome of a good pass.

    `status` is one line for people (systemctl status). `look_again_s`: run the next pass after this time, when that is
    earlier than the cadence; None leaves it to the cadence. `figures` are told to Prometheus until the next good pass.
    """

    status: str
    look_again_s: float | None = None
    figures: tuple[Figure, ...] = ()


class Daemon(Protocol):
    """What one daemon does. All methods are called on one and the same thread, never two at a time."""

    @property
    def name(self) -> str: ...

    @property
    def interval_s(self) -> float:
        """Read before each wait, so that a reload may change it."""
        ...

    @property
    def retry_max_s(self) -> float:
        """After failed passes the next one is tried after FIRST_BACKOFF_S, twice that, and so on up to this."""
        ...

    @property
    def waker(self) -> Waker:
        """The daemon hands it to its watch threads and libvirt callbacks; the loop waits on it."""
        ...

    def run_pass(self) -> PassReport:
        """Look at the world once and act. Every wait in here has a limit.

        A LochnessError means a failed pass: one log line, then a retry. Any other exception too, with its traceback.
        ConfigurationError ends the process with its exit code.
        """
        ...

    def reload(self) -> None:
        """Read the configuration anew (SIGHUP). On ConfigurationError the old one must still be in force."""
        ...

    def stop(self) -> None:
        """The last call, on a clean stop and only when no pass is stuck: revoke a lease, close connections.

        Has a fraction of a second; the process does not wait longer.
        """
        ...


class PassLoop:
    """Runs one daemon's passes on a thread of its own. The attributes may be read by any thread.

    `on_news` is called (on the loop's thread) whenever one of them has changed.
    """

    def __init__(self, daemon: Daemon, *, log: Logger, random: Random, on_news: Callable[[], None]) -> None:
        self.daemon: Final = daemon
        self.has_succeeded = False
        """A first pass was good."""
        self.status = "starting"
        self.busy_since_s: float | None = None
        """time.monotonic() at the start of the pass that runs now; None between passes."""
        self.reloads_done = 0
        self.has_ended = False
        self.misconfigured: ConfigurationError | None = None
        """Why the loop ended by itself."""
        self._log = log
        self._random = random
        self._on_news = on_news
        self._stop = threading.Event()
        self._reloads_asked = 0
        self._failures = 0
        self._failing_since_s = 0.0
        self._logged_failure: type[Exception] | None = None
        self._durations = Durations()
        self._passes = {"good": 0, "failed": 0}
        self._good_at_s = 0.0
        self._reported: tuple[Figure, ...] = ()
        self._thread = threading.Thread(target=self._run, name=f"{daemon.name}-passes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def figures(self) -> list[Figure | DurationFigure]:
        """What Prometheus is told: of the passes, and what the daemon said in its last good one."""
        labels = (("daemon", self.daemon.name),)
        busy_since_s = self.busy_since_s
        busy_s = time.monotonic() - busy_since_s if busy_since_s is not None else 0.0
        counted = [
            Figure("daemon_passes", "Passes by outcome.", count, "counter", (*labels, ("result", result)))
            for result, count in dict(self._passes).items()
        ]
        return [
            *counted,
            self._durations.figure("daemon_pass_seconds", "How long passes took.", labels),
            Figure("daemon_busy_seconds", "How long the pass that runs now has taken; 0 between passes.", busy_s,
                   labels=labels),
            Figure("daemon_last_good_pass_timestamp_seconds", "Unix time of the last good pass, 0: none yet.",
                   self._good_at_s, labels=labels),
            *self._reported,
        ]  # fmt: skip

    def ask_reload(self) -> int:
        """Reload before the next pass, which starts at once. Done when `reloads_done` reaches the answer."""
        self._reloads_asked += 1
        self.daemon.waker.wake()
        return self._reloads_asked

    def ask_stop(self) -> None:
        self._stop.set()
        self.daemon.waker.wake()

    def join(self, timeout_s: float) -> bool:
        """Wait for the loop's end; answers whether it has ended."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            due_s = time.monotonic()
            while not self._stop.is_set():
                self.busy_since_s = time.monotonic()
                self._reload_if_asked()
                look_again_s = self._pass()
                self.busy_since_s = None
                if self.misconfigured is not None:
                    return
                due_s = next_due_s(due_s, time.monotonic(), self.daemon.interval_s)
                self._wait(due_s, look_again_s)
            self._end()
        finally:
            self.has_ended = True
            self._on_news()

    def _end(self) -> None:
        try:
            self.daemon.stop()
        except LochnessError as error:
            self._log.warning(events.DAEMON_STOP_FAILED, error=str(error), reason=error.reason)
        except Exception:
            self._log.exception(events.DAEMON_STOP_FAILED)

    def _reload_if_asked(self) -> None:
        asked = self._reloads_asked
        if asked == self.reloads_done:
            return
        try:
            self.daemon.reload()
            self._log.info(events.DAEMON_RELOADED)
        except LochnessError as error:
            self._log.error(events.DAEMON_RELOAD_FAILED, error=str(error), reason=error.reason)
        except Exception:
            self._log.exception(events.DAEMON_RELOAD_FAILED)
        self.reloads_done = asked
        self._on_news()

    def _pass(self) -> float | None:
        """Run one pass; answers after which time to look again, None for the cadence."""
        started_s = time.monotonic()
        try:
            report = self.daemon.run_pass()
        except ConfigurationError as error:
            self.misconfigured = error
            self.status = str(error)
            return None
        except Exception as error:
            self._count("failed", started_s)
            self._failed(error)
            return backoff_s(self._failures, self.daemon.retry_max_s) * self._random.uniform(1 - JITTER, 1)
        self._count("good", started_s)
        self._good_at_s, self._reported = time.time(), report.figures
        self._succeeded(report)
        return report.look_again_s

    def _count(self, result: str, started_s: float) -> None:
        self._passes[result] += 1
        self._durations.observe(time.monotonic() - started_s)

    def _failed(self, error: Exception) -> None:
        if self._failures == 0:
            self._failing_since_s = time.monotonic()
        self._failures += 1
        self.status = f"failing: {error}"
        if self._logged_failure is not type(error):
            self._logged_failure = type(error)
            if isinstance(error, LochnessError):
                self._log.warning(
                    events.PASS_FAILED, error=str(error), reason=error.reason, cause=str(error.__cause__ or "")
                )
            else:
                self._log.error(events.PASS_FAILED, error=repr(error), exc_info=error)
        self._on_news()

    def _succeeded(self, report: PassReport) -> None:
        if self._failures:
            lasted_s = round(time.monotonic() - self._failing_since_s, 3)
            self._log.info(events.PASS_RECOVERED, failed_passes=self._failures, lasted_s=lasted_s)
            self._failures = 0
            self._logged_failure = None
        if not self.has_succeeded or self.status != report.status:
            self.has_succeeded = True
            self.status = report.status
            self._on_news()

    def _wait(self, due_s: float, look_again_s: float | None) -> None:
        """Until the next pass: the cadence, a wake, or `look_again_s`, whichever is first."""
        wait_s = due_s - time.monotonic() - self._random.uniform(0, JITTER * self.daemon.interval_s)
        if look_again_s is not None:
            wait_s = min(wait_s, look_again_s)
        if self._failures and not self._stop.is_set():
            rest_s = min(FIRST_BACKOFF_S, self.daemon.interval_s)
            self._stop.wait(rest_s)
            wait_s -= rest_s
        if not self._stop.is_set():
            self.daemon.waker.wait(max(0.0, wait_s))


def next_due_s(due_s: float, now_s: float, interval_s: float) -> float:
    """The cadence's next point for a pass that ended at `now_s`, when `due_s` was the one before it.

    A pass within the jitter before `due_s` was the cadence's own; an earlier one was woken, and `due_s` still stands.
    """
    behind_s = now_s - (due_s - JITTER * interval_s)
    return due_s if behind_s < 0 else due_s + (int(behind_s / interval_s) + 1) * interval_s


def backoff_s(failures: int, retry_max_s: float) -> float:
    """How long to wait after the `failures`th failed pass in a row (from 1): doubling, at most `retry_max_s`."""
    return float(min(FIRST_BACKOFF_S * 2 ** min(failures - 1, 30), retry_max_s))
