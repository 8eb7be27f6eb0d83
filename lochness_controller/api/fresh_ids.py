"""Which id does a new object get, when its request may come a second time?

Invariant: within one request with an Idempotency-Key an id follows from the key's seed and the label: who carries the
request out again, after a crash or an unknown outcome, makes the same objects and not new ones.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from lochness.ids import new_id


@dataclass(frozen=True, slots=True)
class Seed:
    """`is_taken_over`: somebody has begun the request before, and it is not known how far that came."""

    value: str
    is_taken_over: bool = False


_seed: ContextVar[Seed | None] = ContextVar("seed", default=None)


@contextmanager
def seeded(seed: Seed) -> Iterator[None]:
    """Ids of this context follow from `seed`."""
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def fresh_id(label: str) -> str:
    """The id for what the request calls `label`; a random one outside of seeds."""
    seed = _seed.get()
    return str(uuid.uuid5(uuid.UUID(seed.value), label)) if seed else new_id()


def is_taken_over() -> bool:
    """Whether what this request makes may be there already."""
    seed = _seed.get()
    return seed is not None and seed.is_taken_over
