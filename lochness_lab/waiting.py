"""How does the laboratory wait for the world? For a condition, with a limit, never for a time.

1. Every wait has a limit in seconds and an error that names what did not happen.
2. The condition is looked at once more after the limit: a busy machine does not turn a success into a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lochness.errors import DeadlineError

T = TypeVar("T")

POLL_S = 0.02


def wait_until(condition: Callable[[], T], *, limit_s: float, what: str, poll_s: float = POLL_S) -> T:
    """The first true value of `condition()`, asked every 20 ms unless `poll_s` says otherwise.

    `what` completes the sentence "within N s there was no ...". Raises DeadlineError after `limit_s` seconds; whatever
    the condition raises reaches the caller.
    """
    deadline_s = time.monotonic() + limit_s
    while True:
        is_last = time.monotonic() >= deadline_s
        if value := condition():
            return value
        if is_last:
            raise DeadlineError(f"within {limit_s:g} s there was no {what}", limit_s=limit_s)
        time.sleep(poll_s)
