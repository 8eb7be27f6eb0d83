"""The one loop of all node daemons, as a real process with a real notification socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness import events
from lochness.systemd_notify import SEND_LIMIT_S, watchdog_period_s
from lochness_lab.waiting import wait_until

START_LIMIT_S = 20.0
STOP_LIMIT_S = 4.0  # promised is a second, on a machine that has time; a blocked pass lasts 5
CHECKOUT = Path(__file__).parents[2]


class Systemd:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def read(self) -> list[str]:
        """All that arrived so far."""
        try:
            while True:
                self.messages.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return self.messages

    def count(self, message: str) -> int:
        return self.read().count(message)

    def wait_for(self, message: str, *, times: int = 1, limit_s: float = START_LIMIT_S) -> None:
        wait_until(lambda: self.count(message) >= times, limit_s=limit_s, what=f"{message} (x{times})")

    def fill(self) -> None:
        """Send to it until it takes no more."""
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.setblocking(False)
        try:
            while True:
                sender.sendto(b"filler", str(self.path))
        except BlockingIOError:
            sender.close()

    def close(self) -> None:
        self._socket.close()


class Running:
    """The daemon under test as a process, with the files that it obeys and writes."""

    def __init__(self, directory: Path, environment: dict[str, str], *, names: str, interval_s: float) -> None:
        self.directory = directory
        self.names = names.split(",")
        for name in self.names:
            os.mkfifo(directory / f"{name}.wake")
        with (directory / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.daemon_under_test", str(directory), names, str(interval_s)],
                cwd=CHECKOUT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self._pipes = [(directory / f"{name}.wake").open("wb", buffering=0) for name in self.names]

    def happened(self, name: str = "one") -> list[str]:
        log = self.directory / f"{name}.log"
        return log.read_text().splitlines() if log.exists() else []

    def wait_for(self, word: str, name: str = "one", *, limit_s: float = START_LIMIT_S) -> None:
        wait_until(lambda: word in self.happened(name), limit_s=limit_s, what=f"{word!r} of {name}")

    def logged(self, event: str) -> list[dict[str, str]]:
        lines = [json.loads(line) for line in (self.directory / "stderr").read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def wake(self) -> None:
        self._pipes[0].write(b"!")

    def order(self, order: str, word: str, name: str = "one") -> None:
        order_file(self.directory, order, word, name)

    def stops_within(self, limit_s: float, number: int = signal.SIGTERM) -> int:
        """Its exit code after the signal. Raises TimeoutExpired."""
        self.process.send_signal(number)
        return self.process.wait(limit_s)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in self._pipes:
            pipe.close()


def order_file(directory: Path, order: str, word: str, name: str = "one") -> None:
    new = directory / f"{name}.{order}.new"
    new.write_text(word)
    new.rename(directory / f"{name}.{order}")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path, systemd: Systemd):
    running: list[Running] = []

    def start(*, names: str = "one", interval_s: float = 0.2, watchdog_s: float = 0, mode: str = "good") -> Running:
        for name in names.split(","):
            order_file(tmp_path, "mode", mode, name)
        environment = {"NOTIFY_SOCKET": str(systemd.path)}
        if watchdog_s:
            environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        running.append(Running(tmp_path, environment, names=names, interval_s=interval_s))
        return running[-1]

    yield start
    for each in running:
        each.end()


def test_ready_comes_after_the_first_good_pass_and_a_failure_is_told_once(run, systemd):
    daemon = run(mode="failing")
    daemon.wait_for("pass 3")
    assert systemd.count("READY=1") == 0
    daemon.order("mode", "good")
    systemd.wait_for("READY=1")
    wait_until(lambda: daemon.logged(events.PASS_RECOVERED), limit_s=5, what="recovery")
    (failed,) = daemon.logged(events.PASS_FAILED)
    assert failed["level"] == "warning"
    assert failed["error"] == "the store was not reached"
    assert "exception" not in failed
    (recovered,) = daemon.logged(events.PASS_RECOVERED)
    assert int(recovered["failed_passes"]) >= 3
    assert any(message == "STATUS=failing: the store was not reached" for message in systemd.read())


def test_an_unforeseen_error_is_logged_with_its_traceback_and_retried(run, systemd):
    daemon = run(mode="broken")
    daemon.wait_for("pass 2")
    daemon.order("mode", "good")
    systemd.wait_for("READY=1")
    (failed,) = daemon.logged(events.PASS_FAILED)
    assert failed["level"] == "error"
    assert "Traceback" in failed["exception"]
    assert "nobody foresaw this" in failed["exception"]


def test_signs_of_life_come_also_while_passes_fail(run, systemd):
    daemon = run(watchdog_s=0.4)
    systemd.wait_for("WATCHDOG=1", times=2)
    daemon.order("mode", "failing")
    wait_until(lambda: daemon.logged(events.PASS_FAILED), limit_s=5, what="failed pass")
    systemd.wait_for("WATCHDOG=1", times=systemd.count("WATCHDOG=1") + 3, limit_s=5)


def test_signs_of_life_end_when_a_pass_is_stuck(run, systemd):
    daemon = run(watchdog_s=0.4)
    systemd.wait_for("READY=1")
    daemon.order("mode", "blocking")
    before = len(daemon.happened())
    wait_until(lambda: len(daemon.happened()) > before, limit_s=5, what="blocking pass")
    quiet_since_s, told = time.monotonic(), systemd.count("WATCHDOG=1")

    def is_quiet() -> bool:
        nonlocal quiet_since_s, told
        if systemd.count("WATCHDOG=1") != told:
            quiet_since_s, told = time.monotonic(), systemd.count("WATCHDOG=1")
        return time.monotonic() - quiet_since_s > 1.0

    wait_until(is_quiet, limit_s=3, what="silence")
    daemon.order("mode", "good")
    systemd.wait_for("WATCHDOG=1", times=told + 1, limit_s=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_0_and_its_stop_is_run(run, systemd, number):
    daemon = run(interval_s=60)
    systemd.wait_for("READY=1")
    assert daemon.stops_within(STOP_LIMIT_S, number) == 0
    assert daemon.happened() == ["pass 1", "stop"]
    assert systemd.count("STOPPING=1") == 1
    (stopped,) = daemon.logged(events.DAEMON_STOPPED)
    assert stopped["why"] == f"signal {signal.Signals(number).name}"


def test_sigterm_ends_it_also_during_a_blocking_pass(run, systemd):
    daemon = run(mode="blocking")
    daemon.wait_for("pass 1")
    assert daemon.stops_within(STOP_LIMIT_S) == 0
    assert daemon.happened() == ["pass 1"]  # the stuck thread has what stop() would need
    assert systemd.count("STOPPING=1") == 1
    assert daemon.logged(events.DAEMON_STOPPED)[0]["left_behind"] == ["one"]


def test_sigterm_ends_it_also_when_its_stop_blocks_or_fails(run, systemd):
    daemon = run()
    daemon.order("stop", "blocking")
    systemd.wait_for("READY=1")
    assert daemon.stops_within(STOP_LIMIT_S) == 0
    assert daemon.happened()[-1] == "stop"


def test_sigterm_ends_it_while_passes_fail_and_when_stop_fails(run, systemd):
    daemon = run(mode="failing", interval_s=60)
    daemon.order("stop", "failing")
    daemon.wait_for("pass 1")
    assert daemon.stops_within(STOP_LIMIT_S) == 0
    assert systemd.count("READY=1") == 0
    assert len(daemon.logged(events.DAEMON_STOP_FAILED)) == 1


def test_sighup_reloads(run, systemd):
    daemon = run(interval_s=60)
    systemd.wait_for("READY=1")
    daemon.process.send_signal(signal.SIGHUP)
    systemd.wait_for("READY=1", times=2)
    daemon.wait_for("pass 2")
    assert daemon.happened() == ["pass 1", "reload", "pass 2"]
    (reloading,) = [message for message in systemd.read() if message.startswith("RELOADING=1\n")]
    began_s = int(reloading.partition("MONOTONIC_USEC=")[2]) / 1e6
    assert 0 <= time.monotonic() - began_s < START_LIMIT_S
    assert systemd.messages.index("READY=1") < systemd.messages.index(reloading)


def test_a_refused_reload_leaves_it_running(run, systemd):
    daemon = run(interval_s=60)
    systemd.wait_for("READY=1")
    daemon.order("reload", "misconfigured")
    daemon.process.send_signal(signal.SIGHUP)
    systemd.wait_for("READY=1", times=2)
    daemon.wait_for("pass 2")
    assert len(daemon.logged(events.DAEMON_RELOAD_FAILED)) == 1
    assert daemon.stops_within(STOP_LIMIT_S) == 0


def test_a_wake_brings_a_pass_at_once(run, systemd):
    daemon = run(interval_s=60)
    systemd.wait_for("READY=1")
    daemon.wake()
    daemon.wait_for("pass 2", limit_s=5)
    daemon.wake()
    daemon.wait_for("pass 3", limit_s=5)


def test_the_cadence_is_kept(run, systemd):
    daemon = run(interval_s=0.2)
    daemon.wait_for("pass 1")
    started_s = time.monotonic()
    daemon.wait_for("pass 11")
    assert 1.5 < time.monotonic() - started_s < 4.0


def test_a_configuration_error_ends_it_with_78(run, systemd):
    daemon = run(mode="misconfigured")
    assert daemon.process.wait(START_LIMIT_S) == 78
    (misconfigured,) = daemon.logged(events.DAEMON_MISCONFIGURED)
    assert misconfigured["error"] == "interval must be above 0, got -1"


def test_several_daemons_in_one_process_are_ready_when_all_are(run, systemd):
    daemons = run(names="one,two", interval_s=0.3)
    systemd.wait_for("READY=1")
    assert daemons.stops_within(STOP_LIMIT_S) == 0
    assert daemons.happened("one")[-1] == daemons.happened("two")[-1] == "stop"


def test_one_daemon_that_fails_does_not_hold_up_the_others(run, systemd, tmp_path):
    daemons = run(names="one,two", interval_s=0.2, mode="failing")
    daemons.wait_for("pass 2", "one")
    daemons.order("mode", "good", "one")
    daemons.wait_for("pass 6", "one")
    assert systemd.count("READY=1") == 0
    assert any("two: failing: the store was not reached" in message for message in systemd.read())
    daemons.order("mode", "good", "two")
    systemd.wait_for("READY=1")


def test_a_full_notification_socket_hangs_nothing_and_ready_arrives_later(run, systemd):
    systemd.fill()
    daemon = run(interval_s=0.2, watchdog_s=0.5)
    daemon.wait_for("pass 5")
    systemd.wait_for("READY=1", limit_s=10)  # reading made room; what was not delivered is sent again
    systemd.wait_for("WATCHDOG=1", limit_s=10)
    systemd.fill()
    assert daemon.stops_within(STOP_LIMIT_S) == 0


SEND_TWICE = """
import sys, time
from lochness.systemd_notify import SystemdNotifier
notifier = SystemdNotifier()
started_s = time.monotonic()
print(notifier.watchdog(), time.monotonic() - started_s, flush=True)
sys.stdin.readline()
print(notifier.ready(), flush=True)
"""


def send_twice(notify_socket: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SEND_TWICE],
        cwd=CHECKOUT,
        env={**os.environ, "NOTIFY_SOCKET": notify_socket},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_full_socket_costs_the_sender_its_limit_and_the_next_send_arrives(systemd):
    systemd.fill()
    with send_twice(str(systemd.path)) as process:
        assert process.stdout is not None
        delivered, took_s = process.stdout.readline().split()
        assert delivered == "False"
        assert SEND_LIMIT_S * 0.9 < float(took_s) < 1
        systemd.read()
        assert process.communicate("go on\n", timeout=START_LIMIT_S)[0] == "True\n"
    assert systemd.count("READY=1") == 1


@pytest.mark.parametrize(("name", "delivered"), [("missing", "False"), ("", "True")])
def test_a_socket_that_is_not_there_is_reported_and_none_at_all_is_fine(tmp_path, name, delivered):
    with send_twice(str(tmp_path / name) if name else "") as process:
        answers = process.communicate("go on\n", timeout=START_LIMIT_S)[0].split()
    assert (answers[0], answers[-1]) == (delivered, delivered)


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "junk"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_meant_for_one_process(environment, watchdog_s):
    assert watchdog_period_s(environment) == watchdog_s


def test_without_systemd_it_runs_the_same(tmp_path):
    order_file(tmp_path, "mode", "good")
    daemon = Running(tmp_path, {"NOTIFY_SOCKET": ""}, names="one", interval_s=0.1)
    try:
        daemon.wait_for("pass 3")
        assert daemon.stops_within(STOP_LIMIT_S) == 0
    finally:
        daemon.end()
