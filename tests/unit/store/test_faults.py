"""FaultyStore fails the call it was told to, before or after its effect, and no other."""

from __future__ import annotations

import pytest

from lochness.errors import AmbiguousWriteError, LochnessError, UnavailableError
from lochness.store.faults import FaultyStore, Moment
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Key, KeyUnchanged, Put
from lochness.transactions import Transaction


@pytest.mark.parametrize(("moment", "is_written"), [("before", False), ("after", True)])
def test_a_fault_comes_before_or_after_the_effect(moment: Moment, is_written: bool) -> None:
    store = FaultyStore(MemoryStore())
    store.read(Key("a"))
    store.fail(2, AmbiguousWriteError("lost"), moment=moment)
    store.read(Key("a"))
    with pytest.raises(AmbiguousWriteError, match="lost"):
        store.commit([], [Put("a", b"1")])
    assert (store.read(Key("a")).one() is not None) is is_written
    assert store.calls == ["read", "read", "commit", "read"]


@pytest.mark.parametrize("nth", range(1, 6))
def test_every_call_can_be_failed(nth: int) -> None:
    store = FaultyStore(MemoryStore())
    lease_id = store.grant_lease(10)
    store.fail(nth, UnavailableError("away"), moment="before")
    calls = (
        lambda: store.read(Key("a")),
        lambda: store.commit([], [Put("a", b"")]),
        lambda: store.grant_lease(10),
        lambda: store.keep_alive(lease_id),
        lambda: store.revoke_lease(lease_id),
    )
    failed = []
    for number, call in enumerate(calls, 1):
        try:
            call()
        except LochnessError:
            failed.append(number)
    assert failed == [nth]


def test_each_call_is_announced_and_may_be_delayed() -> None:
    seen: list[tuple[int, str]] = []
    store = FaultyStore(MemoryStore(), on_call=lambda number, name: seen.append((number, name)))
    store.read(Key("a"))
    store.commit([], [Put("a", b"")])
    assert seen == [(1, "read"), (2, "commit")]


def test_dropped_watches_fail_and_new_ones_work() -> None:
    store = FaultyStore(MemoryStore())
    revision = store.commit([], [Put("a", b"")])
    dropped, closed = (store.watch("a", start_revision=revision) for _ in range(2))
    closed.close()
    assert store.drop_watches(UnavailableError("cut")) == 1
    for _ in range(2):
        with pytest.raises(UnavailableError, match="cut"):
            dropped.next(1)
    assert store.watch("a", start_revision=revision).next(1) is not None


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_transaction_whose_answer_was_lost_is_looked_up(is_begun):
    store = FaultyStore(MemoryStore())
    store.fail(1, AmbiguousWriteError("lost"), moment="after")
    transaction = Transaction((KeyUnchanged("a", 0),), (Put("a", b"1"),))
    revision = transaction.begin(store)() if is_begun else transaction.commit(store)
    found = store.read(Key("a")).one()
    assert found is not None
    assert (found.value, found.mod_revision) == (b"1", revision)
    store.fail(1, AmbiguousWriteError("lost"), moment="before")
    again = Transaction((KeyUnchanged("a", revision),), (Put("a", b"2"),))
    with pytest.raises(AmbiguousWriteError):
        again.begin(store)() if is_begun else again.commit(store)
    assert store.read(Key("a")).one() == found
