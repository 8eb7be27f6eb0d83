"""Calls into something that may hang end in time, and leave nothing behind that could act late."""

from __future__ import annotations

import threading
import time

import pytest

from lochness.errors import DeadlineError, UnavailableError
from lochness_lab.waiting import wait_until
from lochness_node.driver.deadline_calls import DeadlineCalls


@pytest.fixture
def gate():
    """What hangs until the test lets it go; let go at the end in any case."""
    event = threading.Event()
    yield event
    event.set()


def test_the_answer_and_the_error_reach_the_caller():
    calls = DeadlineCalls("test")
    assert calls.run(lambda _: 42, timeout_s=1) == 42
    with pytest.raises(ValueError, match="x"):
        calls.run(lambda _: int("x"), timeout_s=1)


def test_a_hung_call_is_left_behind_in_time_and_comes_back_later(gate):
    calls = DeadlineCalls("test")
    late = threading.Event()
    started_s = time.monotonic()
    with pytest.raises(DeadlineError, match=r"0\.05 s"):
        calls.run(lambda _: gate.wait(10), timeout_s=0.05, on_late_return=late.set)
    assert time.monotonic() - started_s < 1
    assert calls.stuck() == 1
    gate.set()
    assert late.wait(5)
    assert calls.stuck() == 0


def test_nothing_is_begun_after_the_caller_has_left(gate):
    calls = DeadlineCalls("test")
    done: list[str] = []

    def two_steps(still_wanted):
        gate.wait(10)
        still_wanted()
        done.append("changed")

    with pytest.raises(DeadlineError):
        calls.run(two_steps, timeout_s=0.05)
    gate.set()
    wait_until(lambda: calls.stuck() == 0, limit_s=5, what="return of the hung call")
    assert done == []


def test_one_hung_key_does_not_disturb_the_others(gate):
    calls = DeadlineCalls("test", max_calls=2)
    with pytest.raises(DeadlineError):
        calls.run(lambda _: gate.wait(10), timeout_s=0.05, key="a")
    with pytest.raises(UnavailableError, match="a still hangs"):
        calls.run(lambda _: 1, timeout_s=5, key="a")
    assert calls.run(lambda _: 2, timeout_s=5, key="b") == 2
    gate.set()
    wait_until(lambda: calls.stuck() == 0, limit_s=5, what="return of the hung call")
    assert calls.run(lambda _: 3, timeout_s=5, key="a") == 3


def test_when_every_place_hangs_the_next_call_fails_at_once(gate):
    calls = DeadlineCalls("test", max_calls=2)
    for key in ("a", "b"):
        with pytest.raises(DeadlineError):
            calls.run(lambda _: gate.wait(10), timeout_s=0.05, key=key)
    started_s = time.monotonic()
    with pytest.raises(UnavailableError, match="2 calls hang"):
        calls.run(lambda _: 1, timeout_s=30)
    assert time.monotonic() - started_s < 1


def test_a_busy_place_is_waited_for(gate):
    calls = DeadlineCalls("test", max_calls=1)
    first = threading.Thread(target=lambda: calls.run(lambda _: gate.wait(10), timeout_s=10), daemon=True)
    first.start()
    with pytest.raises(UnavailableError, match="busy"):
        wait_until(lambda: calls.run(lambda _: False, timeout_s=0.05), limit_s=5, what="busy place")
    gate.set()
    assert calls.run(lambda _: 7, timeout_s=5) == 7
    first.join(5)
