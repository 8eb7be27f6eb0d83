"""What MemoryStore adds to the contract: time as a parameter and a bound on its past."""

from __future__ import annotations

import pytest

from lochness.errors import CompactedError, LeaseNotFoundError, ValidationError
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Change, Key, Prefix, Put


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_lease_ends_exactly_when_its_time_has_passed() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    lease_id = store.grant_lease(10)
    revision = store.commit([], [Put("b", b"", lease_id), Put("a", b"", lease_id), Put("c", b"")])
    clock.now_s += 9.999
    assert len(store.read(Prefix("b")).ranges[0]) == 1
    assert store.keep_alive(lease_id) == 10
    clock.now_s += 9.999
    assert store.read(Key("a")).one() is not None
    clock.now_s += 0.001
    assert store.read(Key("a")).one() is None
    with pytest.raises(LeaseNotFoundError):
        store.keep_alive(lease_id)
    batch = store.watch("a", start_revision=revision + 1).next(0)
    assert batch is not None
    assert batch.changes == (Change("a", None, revision + 1),)
    assert store.read(Key("c")).revision == revision + 1  # both keys went at once


def test_a_lease_without_keys_ends_without_a_revision() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    store.grant_lease(1)
    before = store.read(Key("a")).revision
    clock.now_s += 2
    assert store.read(Key("a")).revision == before


def test_the_past_is_bounded() -> None:
    store = MemoryStore(history_changes=10)
    first = last = store.commit([], [Put("a", b"0")])
    for number in range(1, 21):
        last = store.commit([], [Put("a", b"%d" % number)])
    with pytest.raises(CompactedError):
        store.read(Key("a"), revision=first)
    with pytest.raises(CompactedError):
        store.watch("a", start_revision=first).next(0)
    kept = store.watch("a", start_revision=last - 9).next(0)
    assert kept is not None
    assert [change.value for change in kept.changes] == [b"%d" % number for number in range(11, 21)]
    past = store.read(Key("a"), revision=last - 9).one()
    assert past is not None
    assert past.value == b"11"


def test_compacting_what_is_compacted_or_yet_to_come_is_refused() -> None:
    store = MemoryStore()
    revision = store.commit([], [Put("a", b"")])
    with pytest.raises(ValidationError):
        store.compact(revision + 1)
    store.compact(revision)
    for past in (revision, revision - 1):
        with pytest.raises(CompactedError) as caught:
            store.compact(past)
        assert caught.value.compact_revision == revision
