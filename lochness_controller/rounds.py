"""How many of one kind of work are on their way at a time? As many as may be, while there is something to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]


class Rounds:
    """At most `rounds_max` of `work()` at a time while `has_work()`. Lives on one event loop. `work` must not raise."""

    def __init__(self, rounds_max: int, has_work: Callable[[], bool], work: Callable[[], Work]) -> None:
        self._rounds_max = rounds_max
        self._has_work = has_work
        self._work = work
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """There is something to do: now, or when one of those under way ends."""
        while self._has_work() and len(self._tasks) < self._rounds_max:
            self.add(self._work())

    def add(self, work: Work) -> None:
        """One more at once, whatever the limit."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.begin()
