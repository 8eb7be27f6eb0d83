"""A store in which somebody else is at work, at the worst moment that a test can think of."""

from __future__ import annotations

from typing import Any, cast

from lochness.store.memory import MemoryStore
from lochness.store.protocol import Operation, Reading, Selector, Store


class BusyStore:
    """Commits what the test prepared right after the read that the test names; is `memory` in everything else."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self._reads_until = 0
        self._operations: tuple[Operation, ...] = ()

    @property
    def store(self) -> Store:
        return cast(Store, self)

    def meanwhile(self, read: int, *operations: Operation) -> None:
        """Commit `operations` right after the `read`-th read from now on."""
        self._reads_until, self._operations = read, operations

    def read(self, *selectors: Selector, revision: int = 0) -> Reading:
        reading = self._memory.read(*selectors, revision=revision)
        self._reads_until -= 1
        if self._reads_until == 0:
            self._memory.commit([], self._operations)
        return reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)
