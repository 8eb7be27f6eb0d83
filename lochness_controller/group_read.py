"""How do many lookups become few requests to the store? Those that come while others are under way are read together.

Invariants:
1. Each answer is as of a revision that the store had after it was asked for, all its keys at the same one.
2. A lone lookup waits for nobody.
3. What fails fails everybody that was read with it, each with the store's own error.

Not guaranteed: a limit on how many wait. A job waits for one lookup at a time, and how many jobs are worked on has one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

from lochness.store.lookup import Lookup
from lochness.store.protocol import MAX_TRANSACTION_OPS, Reading, Selector, Store
from lochness_controller.rounds import Rounds

#: Readings on their way at a time.
READINGS_MAX: Final = 2

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Waiting:
    selectors: tuple[Selector, ...]
    done: asyncio.Future[Reading]


class GroupRead:
    """Reads `store`, on `threads`. Lives on one event loop, from the first `read` on."""

    def __init__(self, store: Store, threads: Executor) -> None:
        self._store = store
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()
        self._rounds = Rounds(READINGS_MAX, lambda: bool(self._waiting), lambda: self._read(self._batch()))

    async def read(self, *selectors: Selector) -> Reading:
        """As `Store.read`, together with others'."""
        waiting = _Waiting(selectors, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._rounds.begin()
        return await waiting.done

    async def look_up(self, lookup: Lookup[T]) -> T:
        """The outcome of a lookup. Raises what it raises, and what `Store.read` does."""
        try:
            selectors = next(lookup)
            while True:
                selectors = lookup.send(await self.read(*selectors))
        except StopIteration as end:
            outcome: T = end.value
            return outcome

    def _batch(self) -> list[_Waiting]:
        """As many of those that wait longest as go into one request."""
        batch: list[_Waiting] = []
        count = 0
        while self._waiting:
            count += len(self._waiting[0].selectors)
            if batch and count > MAX_TRANSACTION_OPS:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _read(self, batch: list[_Waiting]) -> None:
        distinct = tuple(dict.fromkeys(selector for each in batch for selector in each.selectors))
        try:
            reading = await asyncio.get_running_loop().run_in_executor(self._threads, self._store.read, *distinct)
        except Exception as error:  # theirs to handle, each for itself
            for each in batch:
                if not each.done.done():
                    each.done.set_exception(error)
            return
        found = dict(zip(distinct, reading.ranges, strict=True))
        for each in batch:
            if not each.done.done():
                each.done.set_result(Reading(reading.revision, tuple(found[each] for each in each.selectors)))
