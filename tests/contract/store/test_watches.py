"""Store.watch: every change from the start revision on, in order, each once, or an error; never a gap."""

from __future__ import annotations

import threading
import time

import pytest

from lochness.errors import CompactedError, LochnessError, UnavailableError, ValidationError
from lochness.store.protocol import Change, Delete, DeletePrefix, Key, Put, Store, Watch
from lochness_lab.waiting import wait_until
from tests.contract.store.conftest import Backend


def take(watch: Watch, count: int, limit_s: float = 10) -> list[Change]:
    """The next `count` changes; every batch keeps its promise about its revision."""
    changes: list[Change] = []
    deadline_s = time.monotonic() + limit_s
    while len(changes) < count:
        assert time.monotonic() < deadline_s, f"{len(changes)} of {count} changes came"
        batch = watch.next(1)
        if batch is not None:
            assert all(change.mod_revision <= batch.revision for change in batch.changes)
            changes.extend(batch.changes)
    return changes


def test_changes_come_in_order_each_once(store: Store, prefix: str) -> None:
    first = store.commit([], [Put(f"{prefix}b", b"1"), Put(f"{prefix}a", b"1")])
    watch = store.watch(prefix, start_revision=first)
    second = store.commit([], [Put(f"{prefix}a", b"2")])
    third = store.commit([], [Delete(f"{prefix}b"), Put(f"{prefix}c", b"3")])
    assert take(watch, 5) == [
        Change(f"{prefix}b", b"1", first, first),
        Change(f"{prefix}a", b"1", first, first),
        Change(f"{prefix}a", b"2", second, first),
        Change(f"{prefix}b", None, third),
        Change(f"{prefix}c", b"3", third, third),
    ]
    assert watch.next(0.1) is None
    watch.close()


def test_only_what_begins_with_the_prefix_comes(store: Store, prefix: str) -> None:
    watch = store.watch(f"{prefix}h/", start_revision=store.read(Key(prefix)).revision + 1)
    store.commit([], [Put(prefix + name, b"") for name in ("h", "h0", "g/1", "h/1", "i/1", "h/")])
    assert [change.key.removeprefix(prefix) for change in take(watch, 2)] == ["h/1", "h/"]
    assert watch.next(0.1) is None
    watch.close()


def test_a_full_key_watches_it_and_what_it_is_a_prefix_of(store: Store, prefix: str) -> None:
    watch = store.watch(f"{prefix}a", start_revision=store.read(Key(prefix)).revision + 1)
    store.commit([], [Put(f"{prefix}a", b""), Put(f"{prefix}ab", b""), Put(f"{prefix}b", b"")])
    assert [change.key.removeprefix(prefix) for change in take(watch, 2)] == ["a", "ab"]
    watch.close()


def test_delete_prefix_comes_as_one_change_per_key(store: Store, prefix: str) -> None:
    store.commit([], [Put(f"{prefix}{name}", b"") for name in "cab"])
    revision = store.commit([], [DeletePrefix(prefix)])
    watch = store.watch(prefix, start_revision=revision)
    assert take(watch, 3) == [Change(prefix + name, None, revision) for name in "abc"]
    watch.close()


def test_what_happened_before_the_start_revision_does_not_come(store: Store, prefix: str) -> None:
    store.commit([], [Put(f"{prefix}a", b"1")])
    store.commit([], [Put(f"{prefix}a", b"2")])
    third = store.commit([], [Put(f"{prefix}a", b"3")])
    watch = store.watch(prefix, start_revision=third)
    assert [change.value for change in take(watch, 1)] == [b"3"]
    assert watch.next(0.1) is None
    watch.close()


def test_a_watch_from_a_revision_yet_to_come_waits_for_it(store: Store, prefix: str) -> None:
    current = store.read(Key(prefix)).revision
    watch = store.watch(prefix, start_revision=current + 3)
    for number in range(4):
        store.commit([], [Put(f"{prefix}{number}", b"")])
    assert [change.key.removeprefix(prefix) for change in take(watch, 2)] == ["2", "3"]
    watch.close()


def test_resuming_after_each_batch_loses_and_repeats_nothing(store: Store, prefix: str) -> None:
    revision = store.read(Key(prefix)).revision
    expected = []
    for number in range(30):
        store.commit([], [Put(f"{prefix}{number}", b""), Put(f"{prefix}same", b"%d" % number)])
        expected += [f"{prefix}{number}", f"{prefix}same"]
    seen: list[str] = []
    while len(seen) < len(expected):
        watch = store.watch(prefix, start_revision=revision + 1)
        batch = watch.next(5)
        watch.close()
        assert batch is not None
        assert batch.revision > revision
        revision = batch.revision
        seen += [change.key for change in batch.changes]
    assert seen == expected


def test_resuming_within_a_long_past_loses_nothing(store: Store, prefix: str) -> None:
    """etcd tells a long past in parts of 1,000 revisions, each under the newest revision there is."""
    revision = store.read(Key(prefix)).revision
    for number in range(1100):
        store.commit([], [Put(f"{prefix}a", b"%d" % number)])
    seen: list[bytes | None] = []
    while len(seen) < 1100:
        watch = store.watch(prefix, start_revision=revision + 1)
        batch = watch.next(5)
        watch.close()
        assert batch is not None, f"nothing after {len(seen)} changes"
        revision = batch.revision
        seen += [change.value for change in batch.changes]
    assert seen == [b"%d" % number for number in range(1100)]


def test_more_changes_than_a_slow_reader_takes_at_once_all_come(store: Store, prefix: str) -> None:
    watch = store.watch(prefix, start_revision=store.read(Key(prefix)).revision + 1)
    for number in range(200):
        store.commit([], [Put(f"{prefix}a", b"%d" % number)])
    assert [change.value for change in take(watch, 200)] == [b"%d" % number for number in range(200)]
    watch.close()


def test_a_quiet_watch_answers_none_after_its_timeout(store: Store, prefix: str) -> None:
    watch = store.watch(prefix, start_revision=store.read(Key(prefix)).revision + 1)
    started_s = time.monotonic()
    assert watch.next(0.2) is None
    assert 0.19 <= time.monotonic() - started_s < 2
    assert watch.next(0) is None
    watch.close()


class Waiter(threading.Thread):
    """Waits in `watch.next` and keeps what came of it."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(daemon=True)
        self.watch = watch
        self.error: LochnessError | None = None
        self.ended_s = 0.0
        self.start()

    def run(self) -> None:
        try:
            while self.watch.next(30) is None:
                pass
        except LochnessError as error:
            self.error = error
        self.ended_s = time.monotonic()


def test_a_change_wakes_a_waiting_next(store: Store, prefix: str) -> None:
    waiter = Waiter(store.watch(prefix, start_revision=store.read(Key(prefix)).revision + 1))
    store.commit([], [Put(f"{prefix}a", b"")])
    waiter.join(5)
    assert not waiter.is_alive()
    assert waiter.error is None
    waiter.watch.close()


@pytest.mark.parametrize("what", ["watch", "store"])
def test_closing_ends_a_waiting_next_at_once(store: Store, prefix: str, what: str) -> None:
    watch = store.watch(prefix, start_revision=store.read(Key(prefix)).revision + 1)
    assert watch.next(0.2) is None
    waiter = Waiter(watch)
    closed_s = time.monotonic()
    (watch if what == "watch" else store).close()
    waiter.join(5)
    assert isinstance(waiter.error, UnavailableError)
    assert waiter.ended_s - closed_s < 0.5
    with pytest.raises(UnavailableError):
        watch.next(0)
    watch.close()


def test_a_closed_watch_hands_out_nothing_more(store: Store, prefix: str) -> None:
    revision = store.commit([], [Put(f"{prefix}a", b"")])
    watch = store.watch(prefix, start_revision=revision)
    watch.close()
    with pytest.raises(UnavailableError):
        watch.next(1)


def test_one_watch_ends_without_the_others(store: Store, prefix: str) -> None:
    revision = store.read(Key(prefix)).revision
    ended, kept = (store.watch(prefix, start_revision=revision + 1) for _ in range(2))
    ended.close()
    store.commit([], [Put(f"{prefix}a", b"")])
    assert len(take(kept, 1)) == 1
    kept.close()


def first_error(watch: Watch) -> LochnessError:
    try:
        wait_until(lambda: watch.next(0.5) and False, limit_s=10, what="error")
    except LochnessError as error:
        return error
    raise AssertionError


def test_a_watch_from_a_compacted_revision_says_so(backend: Backend, prefix: str) -> None:
    store = backend.store
    first = store.commit([], [Put(f"{prefix}a", b"1")])
    last = [store.commit([], [Put(f"{prefix}a", b"2")]) for _ in range(3)][-1]
    backend.compact(last)
    watch = store.watch(prefix, start_revision=first)
    error = first_error(watch)
    assert isinstance(error, CompactedError)
    assert error.compact_revision == last
    with pytest.raises(CompactedError):
        watch.next(0)
    watch.close()


def test_a_deletion_at_the_compacted_revision_is_not_skipped_silently(backend: Backend, prefix: str) -> None:
    store = backend.store
    store.commit([], [Put(f"{prefix}a", b"1")])
    deleted = store.commit([], [Delete(f"{prefix}a")])
    backend.compact(deleted)
    watch = store.watch(prefix, start_revision=deleted)
    assert isinstance(first_error(watch), CompactedError)
    watch.close()


def test_a_watch_right_after_the_compacted_revision_goes_on(backend: Backend, prefix: str) -> None:
    store = backend.store
    store.commit([], [Put(f"{prefix}a", b"1")])
    compacted = store.commit([], [Put(f"{prefix}a", b"2")])
    after = store.commit([], [Delete(f"{prefix}a")])
    backend.compact(compacted)
    watch = store.watch(prefix, start_revision=compacted + 1)
    assert take(watch, 1) == [Change(f"{prefix}a", None, after)]
    watch.close()


def test_a_watch_that_is_open_outlives_a_compaction(backend: Backend, prefix: str) -> None:
    store = backend.store
    watch = store.watch(prefix, start_revision=store.read(Key(prefix)).revision + 1)
    store.commit([], [Put(f"{prefix}a", b"1")])
    assert [change.value for change in take(watch, 1)] == [b"1"]
    store.commit([], [Put(f"{prefix}a", b"2")])  # told, not yet taken
    backend.compact(store.commit([], [Put(f"{prefix}a", b"3")]))
    store.commit([], [Put(f"{prefix}a", b"4")])
    assert [change.value for change in take(watch, 3)] == [b"2", b"3", b"4"]
    watch.close()


@pytest.mark.parametrize(("name", "start_revision"), [("", 1), ("a", 0), ("a", -1)])
def test_no_prefix_and_no_revision_are_refused(store: Store, name: str, start_revision: int) -> None:
    with pytest.raises(ValidationError):
        store.watch(name, start_revision=start_revision)
