"""A process ends with the one who started it, tells why it failed, and obeys stop, freeze and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lochness.errors import DeadlineError, UnavailableError
from lochness_lab.processes import Process, first_child, kill_with_child, process_state
from lochness_lab.waiting import wait_until

OBEDIENT = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done"


def shell(script, tmp_path):
    process = Process.start(["sh", "-c", script], log=tmp_path / "log")
    process.wait_until(lambda: "up" in process.log_tail(), limit_s=5, what="'up' in the log")
    return process


def test_stop_hands_on_the_exit_status(tmp_path):
    assert shell(OBEDIENT, tmp_path).stop() == 7


def test_stop_kills_what_does_not_listen(tmp_path):
    assert shell(DEAF, tmp_path).stop(limit_s=0.2) == -signal.SIGKILL


def test_a_frozen_process_stands_still_and_can_be_stopped(tmp_path):
    process = shell(OBEDIENT, tmp_path)
    process.freeze()
    assert process_state(process.pid) == "T"
    process.thaw()
    assert process_state(process.pid) != "T"
    process.freeze()
    assert process.stop() == 7


def test_an_early_end_is_told_with_the_end_of_the_log(tmp_path):
    process = Process.start(["sh", "-c", "echo the disk is on fire; exit 3"], log=tmp_path / "log")
    with pytest.raises(UnavailableError, match=r"(?s)status 3, no smile.*the disk is on fire"):
        process.wait_until(lambda: False, limit_s=5, what="smile")


def test_a_wait_has_a_limit_and_names_it(tmp_path):
    with shell(OBEDIENT, tmp_path) as process:
        with pytest.raises(DeadlineError, match=r"within 0\.1 s there was no smile"):
            process.wait_until(lambda: False, limit_s=0.1, what="smile")
        with pytest.raises(DeadlineError, match=r"still runs after 0\.1 s"):
            process.wait(0.1)


def test_a_starter_is_killed_by_way_of_its_child_and_may_have_ended_by_itself():
    # On Ctrl-C, Popen.communicate waits a quarter of a second and reaps what has ended by then.
    with subprocess.Popen(["sh", "-c", "sleep 60; exit 5"]) as starter:
        wait_until(lambda: first_child(starter.pid), limit_s=5, what="child")
        kill_with_child(starter)
        assert starter.wait(5) == 5, "the child was killed, and the starter reaped it"
        kill_with_child(starter)


# Each child interrupts its parent as its first act: the signal comes while Popen is still at work, or just after.
INTERRUPTING = """
import pathlib, signal, subprocess, sys
from lochness_lab.processes import Process, child, run

SCRIPT = ["sh", "-c", "kill -INT $PPID; exec sleep 600"]

def starting():
    with Process.start(SCRIPT, log=pathlib.Path(sys.argv[1])) as process:
        process.wait(30)

def running():
    run(SCRIPT, timeout=30)

def waiting_for_a_child():
    with child(SCRIPT) as process:
        process.wait(30)

for act in (starting, running, waiting_for_a_child) * 6:
    try:
        act()
    except KeyboardInterrupt:
        pass
    else:
        raise SystemExit(f"{act.__name__} was not interrupted")
print(pathlib.Path("/proc/self/task").joinpath(str(__import__("os").getpid()), "children").read_text())
"""


def test_an_interruption_while_a_process_is_started_loses_none(tmp_path):
    argv = [sys.executable, "-c", INTERRUPTING, str(tmp_path / "log")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_tests_that_are_started_deaf_to_an_interruption_hear_it():
    """As `make test &` in a script is. What they start must not inherit it."""
    script = "import tests.conftest, signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    deaf = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(deaf, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_it_dies_with_the_one_who_started_it(tmp_path):
    starter = f"""
import pathlib, signal
from lochness_lab.processes import Process
process = Process.start(["sleep", "600"], log=pathlib.Path({str(tmp_path / "log")!r}))
print(process.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert process_state(pid) != ""
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: process_state(pid) in ("", "Z"), limit_s=5, what=f"end of process {pid}")
