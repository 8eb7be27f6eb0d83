"""Watching keeps a copy of a prefix true through dropped watches, compaction, its user's faults, and etcd restarts."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lochness import events
from lochness.errors import UnavailableError
from lochness.store.etcd import EtcdStore
from lochness.store.faults import FaultyStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Delete, Prefix, Put, Reading, Store, WatchBatch
from lochness.store.watching import Watching
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until
from tests.contract.store.conftest import Backend


class Copy:
    """A copy of a prefix, kept only by what Watching says; every change must be new to it and continue its past."""

    def __init__(self, store: Store, prefix: str, **options: Any) -> None:
        self.store = store
        self.prefix = prefix
        self.values: dict[str, bytes] = {}
        self.revision = 0
        self.history: list[bytes | None] = []
        self.snapshots = 0
        self.transitions: list[str] = []
        self.fields: list[Mapping[str, object]] = []
        self.to_raise: list[Exception] = []
        self.watching = Watching(
            store,
            prefix,
            on_snapshot=self.take_snapshot,
            on_batch=self.take_batch,
            on_transition=self.take_transition,
            retry_max_s=0.2,
            **options,
        )

    def take_snapshot(self, reading: Reading) -> None:
        if self.to_raise:
            raise self.to_raise.pop()
        self.snapshots += 1
        self.values = {kv.key: kv.value for kv in reading.ranges[0]}
        self.revision = reading.revision

    def take_batch(self, batch: WatchBatch) -> None:
        if self.to_raise:
            raise self.to_raise.pop()
        for change in batch.changes:
            assert change.mod_revision > self.revision
            self.history.append(change.value)
            if change.value is None:
                del self.values[change.key]
            else:
                self.values[change.key] = change.value
        self.revision = batch.revision

    def take_transition(self, event: str, fields: Mapping[str, object]) -> None:
        self.transitions.append(event)
        self.fields.append(fields)

    def is_true(self) -> bool:
        try:
            reading = self.store.read(Prefix(self.prefix))
        except UnavailableError:
            return False
        return self.values == {kv.key: kv.value for kv in reading.ranges[0]} and self.snapshots > 0

    def wait_until_true(self) -> None:
        wait_until(self.is_true, limit_s=15, what=f"true copy, transitions {self.transitions}, {self.fields}")

    def wait_for(self, event: str) -> None:
        wait_until(lambda: event in self.transitions, limit_s=15, what=f"{event} among {self.transitions}")


@pytest.fixture
def copies() -> Iterator[Callable[..., Copy]]:
    """Makes copies that are stopped at the end."""
    made: list[Copy] = []

    def make(store: Store, prefix: str, **options: Any) -> Copy:
        copy = Copy(store, prefix, **options)
        made.append(copy)
        copy.watching.start()
        return copy

    yield make
    for copy in made:
        copy.watching.stop()


Copies = Callable[..., Copy]


def test_it_starts_with_what_is_there_and_follows(store: Store, prefix: str, copies: Copies) -> None:
    store.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"1")])
    copy = copies(store, prefix)
    copy.wait_until_true()
    assert copy.watching.is_current
    store.commit([], [Put(f"{prefix}a", b"2"), Delete(f"{prefix}b")])
    revision = store.commit([], [Put(f"{prefix}c", b"3")])
    wait_until(lambda: copy.revision >= revision, limit_s=10, what="change")
    assert copy.is_true()
    assert copy.history == [b"2", None, b"3"]
    assert copy.watching.revision == revision
    assert (copy.snapshots, copy.transitions) == (1, [])


def test_it_stops_within_a_second_and_says_nothing_more(store: Store, prefix: str, copies: Copies) -> None:
    copy = copies(store, prefix)
    copy.wait_until_true()
    started_s = time.monotonic()
    assert copy.watching.stop()
    assert time.monotonic() - started_s < 1
    assert not copy.watching.is_current
    store.commit([], [Put(f"{prefix}a", b"")])
    assert (copy.values, copy.transitions) == ({}, [])
    assert copy.watching.stop()


def test_stopping_what_was_never_started_is_fine(store: Store, prefix: str) -> None:
    assert Copy(store, prefix).watching.stop()


def test_what_was_read_is_not_kept_while_the_watch_lives(store: Store, prefix: str, copies: Copies) -> None:
    store.commit([], [Put(f"{prefix}a", b"1")])
    copy = copies(store, prefix)
    copy.wait_until_true()

    def kept() -> list[Reading]:
        readings = [each for each in gc.get_objects() if isinstance(each, Reading)]
        return [each for each in readings if any(item.key == f"{prefix}a" for items in each.ranges for item in items)]

    wait_until(lambda: not kept(), limit_s=15, what="the end of the reading")


def test_a_dropped_watch_resumes_and_is_told_once(prefix: str, copies: Copies) -> None:
    store = FaultyStore(MemoryStore())
    copy = copies(store, prefix)
    copy.wait_until_true()
    for number in range(5):
        store.commit([], [Put(f"{prefix}a", b"%d" % number)])
        wait_until(lambda: store.drop_watches() == 1, limit_s=5, what="open watch")
        store.commit([], [Put(f"{prefix}b", b"%d" % number)])
        copy.wait_until_true()
        wait_until(lambda: copy.watching.is_current, limit_s=5, what="recovery")
    assert copy.snapshots == 1
    assert copy.history == [value for number in range(5) for value in [b"%d" % number] * 2]
    assert copy.transitions == [events.WATCH_LOST, events.WATCH_RECOVERED] * 5


def test_a_long_loss_is_told_once(prefix: str, copies: Copies) -> None:
    store = FaultyStore(MemoryStore())
    copy = copies(store, prefix)
    copy.wait_until_true()
    refusals = 4
    for nth in range(1, refusals + 1):
        store.fail(nth, UnavailableError("away"), moment="before")
    calls = len(store.calls)
    store.drop_watches()
    copy.wait_for(events.WATCH_RECOVERED)
    assert len(store.calls) >= calls + refusals + 1
    assert copy.transitions == [events.WATCH_LOST, events.WATCH_RECOVERED]
    assert copy.fields[0]["prefix"] == prefix
    assert isinstance(copy.fields[1]["lost_s"], float)


def test_a_start_without_a_store_waits_for_it(prefix: str, copies: Copies) -> None:
    store = FaultyStore(MemoryStore())
    for nth in range(1, 4):
        store.fail(nth, UnavailableError("away"), moment="before")
    copy = copies(store, prefix)
    copy.wait_for(events.WATCH_RECOVERED)
    assert copy.transitions == [events.WATCH_LOST, events.WATCH_RECOVERED]
    assert copy.snapshots == 1


def test_a_compaction_during_a_loss_is_answered_by_a_new_snapshot(prefix: str, copies: Copies) -> None:
    memory = MemoryStore()
    store = FaultyStore(memory)
    store.commit([], [Put(f"{prefix}deleted", b"")])
    copy = copies(store, prefix)
    copy.wait_until_true()
    may_go_on = threading.Event()

    def hold(_number: int, _name: str) -> None:
        may_go_on.wait(10)

    store.on_call = hold  # it can not come back before we compacted
    store.drop_watches()
    memory.commit([], [Put(f"{prefix}a", b"1")])
    memory.commit([], [Delete(f"{prefix}deleted")])
    memory.compact(memory.commit([], [Put(f"{prefix}b", b"1")]))
    may_go_on.set()
    copy.wait_until_true()
    assert copy.snapshots == 2
    assert copy.history == []
    assert f"{prefix}deleted" not in copy.values


def test_the_safety_net_lists_anew(store: Store, prefix: str, copies: Copies) -> None:
    copy = copies(store, prefix, relist_s=0.05)

    def has_relisted() -> bool:
        store.commit([], [Put(f"{prefix}a", b"")])  # a change ends the wait for one
        return copy.snapshots >= 3

    wait_until(has_relisted, limit_s=10, what="third snapshot")
    copy.wait_until_true()
    assert copy.transitions == []


@pytest.mark.parametrize("error", [ValueError("ours"), UnavailableError("ours, not the watch's")])
def test_a_callback_that_raises_is_told_once_and_begins_anew(
    store: Store, prefix: str, copies: Copies, error: Exception
) -> None:
    copy = copies(store, prefix)
    copy.wait_until_true()
    copy.to_raise = [error] * 3
    store.commit([], [Put(f"{prefix}a", b"1")])
    copy.wait_until_true()
    assert copy.to_raise == []
    assert copy.snapshots == 2
    assert copy.transitions == [events.PASS_FAILED]
    assert copy.fields[0]["exc_info"] is error


def test_a_snapshot_continues_gaplessly_under_constant_change(backend: Backend, prefix: str, copies: Copies) -> None:
    """Started, dropped by nobody, while another thread writes: no change is lost between reading and watching."""
    store = backend.store
    is_over = threading.Event()

    def write() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            store.commit([], [Put(f"{prefix}{number % 7}", b"%d" % number)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        several = [copies(store, prefix) for _ in range(4)]
        wait_until(lambda: all(len(copy.history) > 30 for copy in several), limit_s=15, what="30 changes in each")
    finally:
        is_over.set()
        writer.join(10)
    for copy in several:
        copy.wait_until_true()
        numbers = [int(value) for value in copy.history if value is not None]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert copy.snapshots == 1


class TestRealEtcd:
    @pytest.fixture
    def store(self, etcd: EtcdServer) -> Iterator[EtcdStore]:
        with EtcdStore([etcd.url], timeout_s=1) as store:
            yield store
        etcd.start()

    def test_restarted_nothing_is_lost(self, etcd: EtcdServer, store: EtcdStore, prefix: str, copies: Copies) -> None:
        copy = copies(store, prefix)
        copy.wait_until_true()
        for round_number in range(2):
            store.commit([], [Put(f"{prefix}a", b"%d" % round_number)])
            etcd.restart()
            with EtcdStore([etcd.url]) as other:  # before the watch is back
                other.commit([], [Put(f"{prefix}b", b"%d" % round_number)])
            copy.wait_until_true()
            wait_until(lambda: copy.watching.is_current, limit_s=10, what="recovery")
        assert copy.history == [b"0", b"0", b"1", b"1"]
        assert copy.snapshots == 1
        assert copy.transitions == [events.WATCH_LOST, events.WATCH_RECOVERED] * 2

    def test_frozen_it_stops_within_its_limit_all_the_same(
        self, etcd: EtcdServer, store: EtcdStore, prefix: str, copies: Copies
    ) -> None:
        copy = copies(store, prefix)
        copy.wait_until_true()
        etcd.freeze()
        try:
            started_s = time.monotonic()
            assert copy.watching.stop()
            assert time.monotonic() - started_s < 1
            late = Copy(store, prefix)
            late.watching.start()
            late.watching.stop()
            assert time.monotonic() - started_s < 2.5
        finally:
            etcd.thaw()
        assert late.snapshots == 0

    def test_emptied_or_restored_to_an_older_state_it_lists_anew(
        self, tmp_path: Path, prefix: str, copies: Copies
    ) -> None:
        """The revisions go back: resuming would wait for ever for a revision that means something else now."""
        with EtcdServer(tmp_path) as server, EtcdStore([server.url], timeout_s=1) as store:
            for number in range(10):
                store.commit([], [Put(f"{prefix}{number}", b"old")])
            copy = copies(store, prefix)
            copy.wait_until_true()
            server.stop()
            copy.wait_for(events.WATCH_LOST)
            shutil.rmtree(tmp_path / "data")
            server.start()
            with EtcdStore([server.url]) as other:
                other.commit([], [Put(f"{prefix}new", b"new")])
            copy.wait_until_true()
            assert copy.values == {f"{prefix}new": b"new"}
            assert copy.snapshots == 2
            copy.watching.stop()

    def test_found_below_where_it_was_seen_by_others_it_went_back(
        self, etcd: EtcdServer, store: EtcdStore, prefix: str, copies: Copies
    ) -> None:
        """The watch was away when others saw the store come on, and still when it was restored: it missed both."""
        copy = copies(store, prefix)
        copy.wait_until_true()
        assert not copy.watching.went_back
        copy.watching.expect(store.read(Prefix(prefix)).revision)  # nothing new
        for snapshots in (1, 2, 2):
            etcd.restart()
            wait_until(lambda: copy.transitions[-1:] == [events.WATCH_RECOVERED], limit_s=15, what="recovery")
            copy.transitions.clear()
            assert copy.snapshots == snapshots
            assert copy.watching.went_back == (snapshots == 2)
            if snapshots == 1:
                copy.watching.expect(store.read(Prefix(prefix)).revision + 5)
        store.commit([], [Put(f"{prefix}a", b"goes on")])
        copy.wait_until_true()
