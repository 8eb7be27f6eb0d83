"""Many changes in few transactions, each with an answer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lochness.errors import ConflictError, OverloadedError, UnavailableError
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Compare, DeletePrefix, Key, KeyExists, KeyUnchanged, Operation, Put
from lochness.transactions import Transaction
from lochness_controller import group_commit
from lochness_controller.group_commit import GroupCommit


class CountingStore(MemoryStore):
    """Counts its transactions, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[int] = []
        self.is_away = False

    def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        if self.is_away:
            raise UnavailableError("away")
        self.commits.append(len(operations))
        return super().commit(compares, operations)


def new(number: int, *more: Compare) -> Transaction:
    key = f"lochness/x/{number}"
    return Transaction((KeyUnchanged(key, 0), *more), (Put(key, b"1"), Put(f"{key}/job", b"2")))


async def all_of(group: GroupCommit, *transactions: Transaction) -> list[int | BaseException]:
    return await asyncio.gather(*(group.commit(each) for each in transactions), return_exceptions=True)


def test_many_at_once_are_few_transactions_and_all_are_there():
    store = CountingStore()
    answers = asyncio.run(all_of(GroupCommit(store), *map(new, range(500))))
    assert all(isinstance(answer, int) for answer in answers)
    assert sum(store.commits) == 1000
    assert len(store.commits) <= 20
    assert max(store.commits) <= 128
    assert all(store.read(Key(f"lochness/x/{number}/job")).one() for number in range(500))


def test_what_is_wrong_with_one_fails_no_other():
    store = CountingStore()
    store.commit((), (Put("lochness/x/7", b"before"),))
    missing = KeyExists("lochness/flavors/none/metadata")
    transactions = [new(number, *((missing,) if number == 11 else ())) for number in range(30)]
    answers = asyncio.run(all_of(GroupCommit(store), *transactions))
    failed = {number: answer for number, answer in enumerate(answers) if not isinstance(answer, int)}
    assert sorted(failed) == [7, 11]
    taken, absent = failed[7], failed[11]
    assert isinstance(taken, ConflictError)
    assert taken.keys == ("lochness/x/7",)
    assert isinstance(absent, ConflictError)
    assert absent.keys == (missing.key,)
    assert taken.message == "changed meanwhile: lochness/x/7", "and nothing of what others wanted"
    item = store.read(Key("lochness/x/7")).one()
    assert item is not None
    assert item.value == b"before"
    assert store.read(Key("lochness/x/11")).one() is None


def test_two_that_write_the_same_key_do_not_go_together_and_one_of_them_conflicts():
    answers = asyncio.run(all_of(GroupCommit(CountingStore()), *map(new, [1, 2, 2, 3])))
    assert [isinstance(answer, int) for answer in answers].count(False) == 1
    assert isinstance(answers[2], ConflictError)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_prefix_and_a_key_under_it_do_not_go_together(is_first):
    store = CountingStore()
    removal = Transaction((), (DeletePrefix("lochness/x/2/"),))
    under_way = [new(10), new(11)]  # the others wait, and could go together
    changes = [new(1), removal, new(2)] if is_first else [new(1), new(2), removal]
    answers = asyncio.run(all_of(GroupCommit(store), *under_way, *changes))
    assert all(isinstance(answer, int) for answer in answers)
    assert (store.read(Key("lochness/x/2/job")).one() is not None) == is_first
    assert store.read(Key("lochness/x/1")).one() is not None


def test_a_store_that_is_away_is_everybodys_error():
    store = CountingStore()
    store.is_away = True
    answers = asyncio.run(all_of(GroupCommit(store), *map(new, range(5))))
    assert all(isinstance(answer, UnavailableError) for answer in answers)


def test_more_than_may_wait_are_refused():
    count = group_commit.WAITING_MAX + 200
    answers = asyncio.run(all_of(GroupCommit(CountingStore()), *map(new, range(count))))
    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    assert 0 < len(refused) <= 200
    assert refused[0].reason == "too_many_changes"


@pytest.mark.parametrize("count", [1, 2])
def test_a_lone_change_is_a_transaction_of_its_own(count):
    store = CountingStore()

    async def one_after_the_other() -> None:
        group = GroupCommit(store)
        for number in range(count):
            await group.commit(new(number))

    asyncio.run(one_after_the_other())
    assert store.commits == [2] * count
