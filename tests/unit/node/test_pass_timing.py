"""When the next pass of a daemon is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lochness.ids import new_id
from lochness.store.memory import MemoryStore
from lochness_node.heartbeat.shell import Heartbeat
from lochness_node.pass_loop import FIRST_BACKOFF_S, JITTER, backoff_s, next_due_s
from lochness_node.settings import HeartbeatSettings

INTERVAL = st.floats(0.1, 3600)


def test_the_cadence_is_kept_whenever_in_the_jitter_the_pass_ran():
    assert next_due_s(100, 99.5, 10) == 110
    assert next_due_s(100, 100.2, 10) == 110


def test_a_woken_pass_does_not_move_the_cadence():
    assert next_due_s(100, 94, 10) == 100


def test_missed_points_are_skipped():
    assert next_due_s(100, 137, 10) == 140


@given(due_s=st.floats(0, 1e6), late_s=st.floats(-1e4, 1e4), interval_s=INTERVAL)
def test_the_next_pass_is_in_the_future_and_at_most_an_interval_and_the_jitter_away(due_s, late_s, interval_s):
    now_s = due_s + late_s
    found_s = next_due_s(due_s, now_s, interval_s)
    assert found_s >= due_s
    if late_s >= 0:
        assert found_s - JITTER * interval_s > now_s - 1e-6
        assert found_s - now_s <= interval_s * (1 + JITTER) + 1e-6


def test_the_back_off_doubles():
    assert [backoff_s(failures, 60) for failures in (1, 2, 3, 4)] == [0.5, 1, 2, 4]


@given(failures=st.integers(1, 10**6), interval_s=INTERVAL)
def test_the_back_off_is_bounded_by_the_interval(failures, interval_s):
    assert backoff_s(failures, interval_s) <= interval_s
    assert backoff_s(failures, interval_s) >= min(FIRST_BACKOFF_S, interval_s)


def test_a_heartbeat_asks_a_store_that_is_away_each_second_however_long_its_interval():
    heartbeat = Heartbeat(
        HeartbeatSettings(id=new_id(), interval_s=10.0, ttl_s=30), MemoryStore(), host="h", machine="m"
    )
    assert [backoff_s(failures, heartbeat.retry_max_s) for failures in (1, 2, 3, 20)] == [0.5, 1, 1, 1]
