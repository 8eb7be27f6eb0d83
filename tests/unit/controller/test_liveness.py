"""Which hypervisors are marked as lost, and when the mark goes (lochness_controller.liveness)."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from lochness import keys
from lochness.errors import ConflictError
from lochness.guest_state import LostRecord
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Change, Delete, Key, Prefix, Put, WatchBatch
from lochness.transactions import joined
from lochness_controller.liveness.decide import Mark, Unmark, decide, transaction
from lochness_controller.liveness.view import LivenessView

HOST = "11111111-1111-4111-8111-111111111111"
METADATA, RESOURCES = keys.hypervisor(HOST), keys.hypervisor_resources(HOST)
HEARTBEAT, LOST = keys.hypervisor_heartbeat(HOST), keys.hypervisor_lost(HOST)


class SetClock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic_s(self) -> float:
        return self.time.timestamp()


def acted(store, view) -> tuple:
    """One pass: what is in the store is seen, decided and written."""
    view.take_snapshot(store.read(Prefix(keys.HYPERVISOR_PATH)))
    actions = decide(view.take_changed())
    if actions:
        joined(map(transaction, actions)).commit(store)
    return actions


def test_whatever_is_there_a_second_pass_changes_nothing_and_the_mark_is_true():
    parts = (METADATA, RESOURCES, HEARTBEAT, LOST)
    for present in itertools.product((True, False), repeat=4):
        there = dict(zip(parts, present, strict=True))
        with MemoryStore() as store:
            value = LostRecord(since="2026-01-01T00:00:00Z").to_json()
            store.commit((), [Put("lochness/other", b""), *(Put(key, value) for key in parts if there[key])])
            view = LivenessView(SetClock())
            acted(store, view)
            assert acted(store, view) == (), there
            is_marked = store.read(Key(LOST)).one() is not None
            was_reported = there[RESOURCES] or there[LOST]
            assert is_marked == (there[METADATA] and not there[HEARTBEAT] and was_reported), there


def test_the_mark_tells_when_the_heartbeat_went_not_when_it_was_written():
    clock = SetClock()
    with MemoryStore() as store:
        view = LivenessView(clock)
        store.commit((), [Put(METADATA, b"{}"), Put(RESOURCES, b"{}"), Put(HEARTBEAT, b"{}")])
        assert acted(store, view) == ()
        revision = store.commit((), [Delete(HEARTBEAT)])
        clock.time += timedelta(seconds=30)
        went = clock.now()
        assert view.take_batch(WatchBatch(revision, (Change(HEARTBEAT, None, revision),)))
        clock.time += timedelta(
            seconds=30
        )  # a store that took no writes, or another controller that was the leader until now
        (mark,) = acted(store, view)
        assert isinstance(mark, Mark)
        assert datetime.fromisoformat(mark.since) == went
        store.commit((), [Put(HEARTBEAT, b"{}")])
        (unmark,) = acted(store, view)
        assert unmark == Unmark(HOST, revision + 1, mark.since)


def test_a_binding_is_nothing_to_look_at():
    view = LivenessView(SetClock())
    assert not view.take_batch(WatchBatch(7, (Change(keys.hypervisor_guest(HOST, HOST), b"{}", 7),)))


def test_a_host_that_beats_again_before_the_mark_was_written_gets_none():
    with MemoryStore() as store:
        store.commit((), [Put(METADATA, b"{}"), Put(RESOURCES, b"{}"), Put(HEARTBEAT, b"{}")])
        late = transaction(Mark(HOST, datetime.now(UTC).isoformat()))
        with pytest.raises(ConflictError):
            late.commit(store)
        assert store.read(Key(LOST)).one() is None
