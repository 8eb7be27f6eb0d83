"""Store.read: what it selects, at which revision, and what it refuses."""

from __future__ import annotations

import pytest

from lochness.errors import CompactedError, UnavailableError, ValidationError
from lochness.store.protocol import MAX_TRANSACTION_OPS, Delete, Key, KeyValue, Prefix, Put, Store
from tests.contract.store.conftest import Backend


def test_a_key_reads_as_it_was_written(store: Store, prefix: str) -> None:
    value = bytes(range(256))
    revision = store.commit([], [Put(f"{prefix}a", value)])
    reading = store.read(Key(f"{prefix}a"))
    assert reading.revision >= revision
    assert reading.ranges == ((KeyValue(f"{prefix}a", value, revision, revision, 0),),)
    assert reading.one() == reading.ranges[0][0]


def test_a_missing_key_reads_as_none(store: Store, prefix: str) -> None:
    store.commit([], [Put(f"{prefix}ab", b"1")])
    reading = store.read(Key(f"{prefix}a"), Key(f"{prefix}ab"))
    assert reading.one(0) is None
    assert reading.one(1) is not None


def test_an_empty_value_is_a_value(store: Store, prefix: str) -> None:
    store.commit([], [Put(f"{prefix}a", b"")])
    found = store.read(Key(f"{prefix}a")).one()
    assert found is not None
    assert found.value == b""


def test_create_revision_stays_and_mod_revision_moves(store: Store, prefix: str) -> None:
    first = store.commit([], [Put(f"{prefix}a", b"1")])
    second = store.commit([], [Put(f"{prefix}a", b"2")])
    store.commit([], [Delete(f"{prefix}a")])
    third = store.commit([], [Put(f"{prefix}a", b"3")])
    assert first < second < third
    assert store.read(Key(f"{prefix}a"), revision=second).ranges[0] == (KeyValue(f"{prefix}a", b"2", first, second),)
    assert store.read(Key(f"{prefix}a")).ranges[0] == (KeyValue(f"{prefix}a", b"3", third, third),)


def test_a_prefix_selects_what_begins_with_it_in_key_order(store: Store, prefix: str) -> None:
    names = ["h/b", "h/a", "h/ü", "h/😀", "h/￿", "h/", "h", "h0", "g/z", "h/a/x"]
    store.commit([], [Put(prefix + name, name.encode()) for name in names])
    found = store.read(Prefix(f"{prefix}h/")).ranges[0]
    expected = sorted(name for name in names if name.startswith("h/"))
    assert [kv.key for kv in found] == [prefix + name for name in expected]
    assert [kv.value for kv in found] == [name.encode() for name in expected]


def test_keys_only_leaves_the_values_out(store: Store, prefix: str) -> None:
    revision = store.commit([], [Put(f"{prefix}a", b"long"), Put(f"{prefix}b", b"longer")])
    assert store.read(Prefix(prefix, keys_only=True)).ranges[0] == (
        KeyValue(f"{prefix}a", b"", revision, revision),
        KeyValue(f"{prefix}b", b"", revision, revision),
    )
    first = store.read(Prefix(prefix, keys_only=True), revision=revision).ranges[0][0]
    assert first.value == b""


def test_each_selector_has_its_range_at_one_revision(store: Store, prefix: str) -> None:
    store.commit([], [Put(f"{prefix}x/{number}", b"x") for number in range(3)])
    revision = store.commit([], [Put(f"{prefix}y", b"y")])
    reading = store.read(Prefix(f"{prefix}x/"), Key(f"{prefix}none"), Key(f"{prefix}y"), Prefix(f"{prefix}none/"))
    assert [len(items) for items in reading.ranges] == [3, 0, 1, 0]
    assert reading.revision >= revision


def test_a_read_at_a_past_revision_shows_the_past(store: Store, prefix: str) -> None:
    first = store.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"1")])
    second = store.commit([], [Put(f"{prefix}a", b"2"), Delete(f"{prefix}b"), Put(f"{prefix}c", b"2")])
    store.commit([], [Delete(f"{prefix}a"), Put(f"{prefix}b", b"3")])

    def seen(revision: int) -> list[dict[str, bytes]]:
        reading = store.read(Prefix(prefix), Key(f"{prefix}a"), revision=revision)
        assert reading.revision == revision
        return [{kv.key.removeprefix(prefix): kv.value for kv in items} for items in reading.ranges]

    assert seen(first) == [{"a": b"1", "b": b"1"}, {"a": b"1"}]
    assert seen(second) == [{"a": b"2", "c": b"2"}, {"a": b"2"}]
    assert store.read(Prefix(prefix), revision=first - 1).ranges == ((),)


def test_a_compacted_revision_is_gone_and_the_compaction_s_own_is_not(backend: Backend, prefix: str) -> None:
    store = backend.store
    first = store.commit([], [Put(f"{prefix}a", b"1")])
    second = store.commit([], [Put(f"{prefix}a", b"2")])
    store.commit([], [Delete(f"{prefix}a")])
    backend.compact(second)
    for selectors in ([Key(f"{prefix}a")], [Key(f"{prefix}a"), Prefix(prefix)]):
        with pytest.raises(CompactedError):
            store.read(*selectors, revision=first)
    at_second = store.read(Key(f"{prefix}a"), revision=second).one()
    assert at_second is not None
    assert at_second.value == b"2"
    assert store.read(Key(f"{prefix}a")).one() is None


def test_a_revision_yet_to_come_is_refused(store: Store, prefix: str) -> None:
    current = store.read(Key(prefix)).revision
    with pytest.raises(ValidationError):
        store.read(Key(prefix), revision=current + 1000)


def test_the_largest_read_is_answered_and_a_larger_one_refused(store: Store, prefix: str) -> None:
    selectors = [Key(f"{prefix}{number}") for number in range(MAX_TRANSACTION_OPS)]
    assert len(store.read(*selectors).ranges) == MAX_TRANSACTION_OPS
    with pytest.raises(ValidationError):
        store.read(*selectors, Key(prefix))


@pytest.mark.parametrize("selectors", [[], [Key("")], [Prefix("")], [Key("a"), Prefix("")]])
def test_no_selector_and_empty_ones_are_refused(store: Store, selectors: list[Key | Prefix]) -> None:
    with pytest.raises(ValidationError):
        store.read(*selectors)


def test_a_negative_revision_is_refused(store: Store) -> None:
    with pytest.raises(ValidationError):
        store.read(Key("a"), revision=-1)


def test_more_than_grpc_s_usual_four_megabytes_are_read(store: Store, prefix: str) -> None:
    value = b"v" * 1_000_000
    for number in range(6):
        store.commit([], [Put(f"{prefix}{number}", value)])
    assert [len(kv.value) for kv in store.read(Prefix(prefix)).ranges[0]] == [1_000_000] * 6


def test_a_closed_store_is_unavailable(store: Store, prefix: str) -> None:
    store.close()
    with pytest.raises(UnavailableError):
        store.read(Key(prefix))
    with pytest.raises(UnavailableError):
        store.commit([], [Put(prefix, b"")])
    with pytest.raises(UnavailableError):
        store.grant_lease(10)
    with pytest.raises(UnavailableError):
        store.keep_alive(1)
    with pytest.raises(UnavailableError):
        store.revoke_lease(1)
    with pytest.raises(UnavailableError):
        store.watch(prefix, start_revision=1)
    store.close()
