"""Store.commit and Store.begin_commit: all or nothing, each kind of compare, what a conflict names, and what is refused
unsent."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from lochness.errors import ConflictError, LeaseNotFoundError, ValidationError
from lochness.store.etcd import EtcdStore
from lochness.store.faults import FaultyStore
from lochness.store.protocol import (
    MAX_TRANSACTION_OPS,
    Compare,
    Delete,
    DeletePrefix,
    Key,
    KeyExists,
    KeyUnchanged,
    Operation,
    Prefix,
    PrefixUnchanged,
    Put,
    Store,
)
from lochness_lab.etcd import EtcdServer
from tests.contract.store.conftest import Backend


class Beginning(FaultyStore):
    """Begins every commit, and waits for it at once."""

    def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        return self._inner.begin_commit(compares, operations)()


@pytest.fixture(params=["commit", "begin_commit"])
def store(request: pytest.FixtureRequest, backend: Backend) -> Store:
    return backend.store if request.param == "commit" else Beginning(backend.store)


def contents(store: Store, prefix: str) -> dict[str, bytes]:
    return {kv.key.removeprefix(prefix): kv.value for kv in store.read(Prefix(prefix)).ranges[0]}


def test_all_changes_of_a_transaction_share_the_next_revision(store: Store, prefix: str) -> None:
    before = store.commit([], [Put(f"{prefix}gone", b"")])
    revision = store.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"2"), Delete(f"{prefix}gone")])
    assert revision == before + 1
    reading = store.read(Prefix(prefix))
    assert reading.revision == revision
    assert [(kv.key, kv.mod_revision) for kv in reading.ranges[0]] == [
        (f"{prefix}a", revision),
        (f"{prefix}b", revision),
    ]


def test_a_put_of_the_same_value_is_a_change(store: Store, prefix: str) -> None:
    first = store.commit([], [Put(f"{prefix}a", b"1")])
    assert store.commit([], [Put(f"{prefix}a", b"1")]) == first + 1


def test_deleting_what_is_not_there_changes_nothing(store: Store, prefix: str) -> None:
    revision = store.commit([], [Put(f"{prefix}a", b"1")])
    assert store.commit([], [Delete(f"{prefix}none"), DeletePrefix(f"{prefix}none/")]) == revision


def test_delete_prefix_removes_what_begins_with_it_and_nothing_else(store: Store, prefix: str) -> None:
    store.commit([], [Put(prefix + name, b"") for name in ("h/1", "h/2", "h/", "h", "h0", "g/1")])
    store.commit([], [DeletePrefix(f"{prefix}h/"), Put(f"{prefix}i", b"")])
    assert sorted(contents(store, prefix)) == ["g/1", "h", "h0", "i"]


@pytest.mark.parametrize("number", [1, 40, MAX_TRANSACTION_OPS])
def test_a_conflict_changes_nothing(store: Store, prefix: str, number: int) -> None:
    store.commit([], [Put(f"{prefix}a", b"old")])
    operations: list[Operation] = [Put(f"{prefix}{index}", b"new") for index in range(number - 1)]
    with pytest.raises(ConflictError) as caught:
        store.commit([KeyUnchanged(f"{prefix}a", 0)], [*operations, Delete(f"{prefix}a")])
    assert caught.value.keys == (f"{prefix}a",)
    assert contents(store, prefix) == {"a": b"old"}


def test_key_unchanged_holds_for_its_revision_only(store: Store, prefix: str) -> None:
    key = f"{prefix}a"
    first = store.commit([KeyUnchanged(key, 0)], [Put(key, b"1")])
    second = store.commit([KeyUnchanged(key, first)], [Put(key, b"2")])
    for stale in (0, first, second + 1):
        with pytest.raises(ConflictError) as caught:
            store.commit([KeyUnchanged(key, stale)], [Put(key, b"3")])
        assert caught.value.keys == (key,)
    store.commit([KeyUnchanged(key, second)], [Delete(key)])
    with pytest.raises(ConflictError):
        store.commit([KeyUnchanged(key, second)], [Put(key, b"3")])
    store.commit([KeyUnchanged(key, 0)], [Put(key, b"4")])
    assert contents(store, prefix) == {"a": b"4"}


def test_key_exists(store: Store, prefix: str) -> None:
    store.commit([], [Put(f"{prefix}ab", b"")])
    with pytest.raises(ConflictError) as caught:
        store.commit([KeyExists(f"{prefix}a"), KeyExists(f"{prefix}ab")], [Put(f"{prefix}x", b"")])
    assert caught.value.keys == (f"{prefix}a",)
    store.commit([KeyExists(f"{prefix}ab")], [Put(f"{prefix}x", b"")])
    assert sorted(contents(store, prefix)) == ["ab", "x"]


class TestPrefixUnchanged:
    """Placement rests on this one: a whole range compared with the revision it was read at."""

    def claims(self, store: Store, prefix: str) -> tuple[str, int]:
        under = f"{prefix}claims/"
        store.commit([], [Put(f"{under}1", b"1"), Put(f"{under}2", b"2"), Put(f"{prefix}claims", b"not under it")])
        return under, store.read(Prefix(under)).revision

    def test_holds_when_nothing_happened_there(self, store: Store, prefix: str) -> None:
        under, revision = self.claims(store, prefix)
        store.commit([], [Put(f"{prefix}claims", b"changed"), Put(f"{prefix}claims0", b"new")])
        store.commit([PrefixUnchanged(under, revision)], [Put(f"{under}3", b"3")])
        assert f"{under}3" in {kv.key for kv in store.read(Prefix(under)).ranges[0]}

    def test_holds_for_an_empty_prefix_range(self, store: Store, prefix: str) -> None:
        revision = store.read(Prefix(prefix)).revision
        store.commit([PrefixUnchanged(prefix, revision)], [Put(f"{prefix}a", b"")])
        assert sorted(contents(store, prefix)) == ["a"]

    @pytest.mark.parametrize("name", ["0", "1", "2", "3", ""])
    def test_sees_a_new_and_a_modified_key(self, store: Store, prefix: str, name: str) -> None:
        under, revision = self.claims(store, prefix)
        store.commit([], [Put(under + name, b"changed")])
        with pytest.raises(ConflictError) as caught:
            store.commit([PrefixUnchanged(under, revision)], [Put(f"{prefix}mine", b"")])
        assert caught.value.keys == (under,)
        assert "mine" not in contents(store, prefix)

    def test_does_not_see_a_deletion(self, store: Store, prefix: str) -> None:
        under, revision = self.claims(store, prefix)
        store.commit([], [Delete(f"{under}1")])
        store.commit([PrefixUnchanged(under, revision)], [Put(f"{under}3", b"3")])
        assert sorted(contents(store, under)) == ["2", "3"]

    def test_sees_a_deleted_key_that_came_back(self, store: Store, prefix: str) -> None:
        under, revision = self.claims(store, prefix)
        store.commit([], [Delete(f"{under}1")])
        store.commit([], [Put(f"{under}1", b"1")])
        with pytest.raises(ConflictError):
            store.commit([PrefixUnchanged(under, revision)], [Put(f"{under}3", b"3")])


def test_a_conflict_names_exactly_what_failed(store: Store, prefix: str) -> None:
    revision = store.commit([], [Put(f"{prefix}a", b""), Put(f"{prefix}p/1", b""), Put(f"{prefix}q/1", b"")])
    store.commit([], [Put(f"{prefix}p/2", b"")])
    compares: list[Compare] = [
        KeyUnchanged(f"{prefix}a", revision),
        KeyUnchanged(f"{prefix}a", revision - 1),
        KeyUnchanged(f"{prefix}none", 0),
        KeyUnchanged(f"{prefix}none", revision),
        KeyExists(f"{prefix}a"),
        KeyExists(f"{prefix}missing"),
        PrefixUnchanged(f"{prefix}p/", revision),
        PrefixUnchanged(f"{prefix}q/", revision),
    ]
    with pytest.raises(ConflictError) as caught:
        store.commit(compares, [Put(f"{prefix}b", b"")])
    assert caught.value.keys == (f"{prefix}a", f"{prefix}none", f"{prefix}missing", f"{prefix}p/")
    assert caught.value.details["keys"] == list(caught.value.keys)


def test_the_largest_transaction_is_performed(store: Store, prefix: str) -> None:
    names = [f"{prefix}{number:03}" for number in range(MAX_TRANSACTION_OPS)]
    revision = store.commit([KeyUnchanged(name, 0) for name in names], [Put(name, b"1") for name in names])
    with pytest.raises(ConflictError) as caught:
        store.commit([KeyUnchanged(name, 0) for name in names], [Delete(name) for name in names])
    assert caught.value.keys == tuple(names)
    store.commit([KeyUnchanged(name, revision) for name in names], [Delete(name) for name in names])
    assert contents(store, prefix) == {}


BAD_TRANSACTIONS: dict[str, tuple[list[Compare], list[Operation]]] = {
    "no operation": ([KeyUnchanged("bad/a", 0)], []),
    "put twice": ([], [Put("bad/a", b"1"), Put("bad/a", b"1")]),
    "put and delete": ([], [Put("bad/a", b"1"), Delete("bad/a")]),
    "delete twice": ([], [Delete("bad/a"), Delete("bad/a")]),
    "put under a deleted prefix": ([], [DeletePrefix("bad/"), Put("bad/a", b"1")]),
    "delete under a deleted prefix": ([], [Delete("bad/a"), DeletePrefix("bad/")]),
    "nested prefixes": ([], [DeletePrefix("bad/"), DeletePrefix("bad/a/")]),
    "the same prefix": ([], [DeletePrefix("bad/"), DeletePrefix("bad/")]),
    "empty key": ([], [Put("", b"1")]),
    "empty prefix": ([], [DeletePrefix("")]),
    "empty key compared": ([KeyExists("")], [Put("bad/a", b"1")]),
    "empty prefix compared": ([PrefixUnchanged("", 1)], [Put("bad/a", b"1")]),
    "negative lease": ([], [Put("bad/a", b"1", lease_id=-1)]),
    "too many operations": ([], [Put(f"bad/{number}", b"") for number in range(MAX_TRANSACTION_OPS + 1)]),
    "too many compares": ([KeyExists("bad/a")] * (MAX_TRANSACTION_OPS + 1), [Put("bad/a", b"1")]),
}


@pytest.mark.parametrize("case", BAD_TRANSACTIONS)
def test_a_malformed_transaction_is_refused_and_changes_nothing(store: Store, case: str) -> None:
    compares, operations = BAD_TRANSACTIONS[case]
    with pytest.raises(ValidationError):
        store.commit(compares, operations)
    assert store.read(Prefix("bad/")).ranges == ((),)


def test_a_put_under_a_lease_that_is_gone_changes_nothing(store: Store, prefix: str) -> None:
    lease_id = store.grant_lease(60)
    store.revoke_lease(lease_id)
    with pytest.raises(LeaseNotFoundError):
        store.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"1", lease_id)])
    assert contents(store, prefix) == {}


def test_a_conflict_comes_before_a_missing_lease(store: Store, prefix: str) -> None:
    with pytest.raises(ConflictError):
        store.commit([KeyExists(f"{prefix}none")], [Put(f"{prefix}b", b"1", 4711)])


def test_several_that_were_begun_each_have_their_own_outcome(store: Store, prefix: str) -> None:
    first = store.commit([], [Put(f"{prefix}taken", b"")])
    outcomes = [
        store.begin_commit([KeyUnchanged(f"{prefix}{name}", 0)], [Put(f"{prefix}{name}", b"1")])
        for name in ("a", "taken", "b", "c")
    ]
    revisions = [outcomes[number]() for number in (3, 0, 2)]
    with pytest.raises(ConflictError) as caught:
        outcomes[1]()
    assert caught.value.keys == (f"{prefix}taken",)
    assert sorted(revisions) == [first + 1, first + 2, first + 3]
    assert contents(store, prefix) == {"taken": b"", "a": b"1", "b": b"1", "c": b"1"}


def test_what_was_in_the_way_and_is_gone_when_it_is_asked_about_lets_the_transaction_through(
    etcd: EtcdServer, prefix: str
) -> None:
    """etcd is asked a second time what stood in the way of a transaction; nothing does any more, so it is committed."""
    key = f"{prefix}a"

    class Late(EtcdStore):
        def _commit_again(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
            self.commit([], [Delete(key)])
            return super()._commit_again(compares, operations)

    with Late([etcd.url]) as store:
        store.commit([], [Put(key, b"before")])
        revision = store.commit([KeyUnchanged(key, 0)], [Put(key, b"after")])
        found = store.read(Key(key)).one()
    assert found is not None
    assert (found.value, found.mod_revision) == (b"after", revision)


def test_racing_increments_lose_nothing(store: Store, prefix: str) -> None:
    key = f"{prefix}counter"
    store.commit([], [Put(key, b"0")])
    threads, increments = 8, 15
    conflicts = []

    def increment() -> None:
        done = 0
        while done < increments:
            kv = store.read(Key(key)).one()
            assert kv is not None
            try:
                store.commit([KeyUnchanged(key, kv.mod_revision)], [Put(key, b"%d" % (int(kv.value) + 1))])
            except ConflictError as error:
                conflicts.append(error.keys)
            else:
                done += 1

    run_together([increment] * threads)
    found = store.read(Key(key)).one()
    assert found is not None
    assert int(found.value) == threads * increments
    assert set(conflicts) <= {(key,)}


def test_racing_claims_of_the_last_place_have_one_winner(store: Store, prefix: str) -> None:
    """The overcommit that a compare of single keys can not prevent: everybody writes a key of their own."""
    under = f"{prefix}guests/"
    revision = store.read(Prefix(under)).revision
    winners = []

    def claim(name: str) -> None:
        try:
            store.commit([PrefixUnchanged(under, revision)], [Put(under + name, b"")])
        except ConflictError:
            return
        winners.append(name)

    run_together([lambda name=str(number): claim(name) for number in range(8)])
    assert len(winners) == 1
    assert list(contents(store, under)) == winners


def run_together(calls: list) -> None:
    barrier = threading.Barrier(len(calls))

    def run(call) -> None:
        barrier.wait(10)
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
