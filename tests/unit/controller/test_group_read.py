"""Many lookups in few requests, each with an answer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from lochness.errors import NotFoundError, UnavailableError
from lochness.store.lookup import Lookup
from lochness.store.memory import MemoryStore
from lochness.store.protocol import MAX_TRANSACTION_OPS, Key, Prefix, Put, Reading, Selector
from lochness_controller.group_read import GroupRead


class CountingStore(MemoryStore):
    """Counts its readings, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.readings: list[int] = []
        self.is_away = False

    def read(self, *selectors: Selector, revision: int = 0) -> Reading:
        if self.is_away:
            raise UnavailableError("away")
        self.readings.append(len(selectors))
        return super().read(*selectors, revision=revision)


@pytest.fixture
def store():
    store = CountingStore()
    for number in range(300):
        store.commit((), (Put(f"lochness/x/{number}", str(number + 1).encode()), Put(f"lochness/y/{number}/a", b"")))
    return store


def follow(number: int, steps: int) -> Lookup[int]:
    """Each key's value is the number of the next one."""
    for _ in range(steps):
        item = (yield (Key(f"lochness/x/{number}"),)).one()
        if item is None:
            raise NotFoundError("number", str(number))
        number = int(item.value)
    return number


def all_of(store: CountingStore, *lookups: Lookup[int]) -> Sequence[int | BaseException]:
    async def run(threads: ThreadPoolExecutor) -> Sequence[int | BaseException]:
        reads = GroupRead(store, threads)
        return await asyncio.gather(*map(reads.look_up, lookups), return_exceptions=True)

    with ThreadPoolExecutor(2) as threads:
        return asyncio.run(run(threads))


def test_many_at_once_are_few_requests_and_each_has_its_own_answer(store):
    assert all_of(store, *(follow(number, 3) for number in range(250))) == [number + 3 for number in range(250)]
    assert len(store.readings) <= 20
    assert max(store.readings) <= MAX_TRANSACTION_OPS


def test_a_lookup_that_fails_fails_alone(store):
    answers = all_of(store, follow(1, 2), follow(299, 2), follow(3, 2))
    assert isinstance(answers[1], NotFoundError)
    assert (answers[0], answers[2]) == (3, 5)


def test_a_store_that_is_away_is_everybodys_error(store):
    store.is_away = True
    assert all(isinstance(answer, UnavailableError) for answer in all_of(store, follow(1, 1), follow(2, 1)))


def test_what_two_ask_for_is_read_once_and_a_lone_lookup_alone(store):
    assert all_of(store, *(follow(7, 1) for _ in range(40))) == [8] * 40
    assert set(store.readings) == {1}
    store.readings.clear()
    assert all_of(store, follow(7, 3)) == [10]
    assert store.readings == [1, 1, 1]


def test_keys_and_prefixes_keep_their_places(store):
    async def run(threads: ThreadPoolExecutor) -> list[Reading]:
        reads = GroupRead(store, threads)
        return await asyncio.gather(
            *(reads.read(Prefix(f"lochness/y/{number}/"), Key(f"lochness/x/{number}")) for number in range(90))
        )

    with ThreadPoolExecutor(2) as threads:
        readings = asyncio.run(run(threads))
    for number, reading in enumerate(readings):
        assert [item.key for found in reading.ranges for item in found] == [
            f"lochness/y/{number}/a", f"lochness/x/{number}",
        ]  # fmt: skip
