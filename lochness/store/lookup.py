"""How is something looked up whose keys only other keys tell? Written once, for threads and for event loops.

A lookup is a generator: it yields the selectors that it wants read, is sent their `Reading`, and returns the outcome.

    def name_of_the_network(guest_id: str) -> Lookup[str]:
        guest = (yield (Key(keys.guest(guest_id)),)).one()
        ...
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from lochness.store.protocol import Reading, Selector, Store

T = TypeVar("T")

Lookup: TypeAlias = Generator[tuple[Selector, ...], Reading, T]


def look_up(store: Store, lookup: Lookup[T]) -> T:
    """The outcome, reading `store` and waiting for it. Raises what the lookup raises, and what `Store.read` does."""
    try:
        selectors = next(lookup)
        while True:
            selectors = lookup.send(store.read(*selectors))
    except StopIteration as end:
        outcome: T = end.value
        return outcome
