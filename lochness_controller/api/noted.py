"""What does a request's handler add to the request's entry in the journal?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_fields: ContextVar[dict[str, str] | None] = ContextVar("fields", default=None)


def note(**fields: str) -> None:
    """Add these to the entry of the request that is being answered, if it gets one."""
    noted = _fields.get()
    if noted is not None:
        noted.update(fields)


@contextmanager
def noting() -> Iterator[dict[str, str]]:
    """What is noted in this context, threads that work for it included."""
    noted: dict[str, str] = {}
    token = _fields.set(noted)
    try:
        yield noted
    finally:
        _fields.reset(token)
