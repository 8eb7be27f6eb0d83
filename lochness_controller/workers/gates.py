"""Is it worth asking this hypervisor's agent? A gate per hypervisor, which one that does not answer closes for itself.

    gate = gates.of(hypervisor)
    with gate.asking(await gate.enter(limit_s)):
        ...one request...

Invariants:
1. After CLOSE_AFTER requests in a row without an answer one job at a time asks, with a pause before each try that
   doubles up to `retry_max_s`; the others wait without a connection and without a thread.
2. The first answer opens the gate, and all who wait at it go on at once.
3. Nobody waits longer than its own limit.
4. The closing and the opening are logged once each.

Used on one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from lochness import events
from lochness.errors import (
    AgentJobError,
    AmbiguousWriteError,
    DeadlineError,
    HTTPCodeError,
    LochnessError,
    UnavailableError,
)
from lochness.log import get_logger

CLOSE_AFTER: Final = 3
RETRY_MIN_S: Final = 0.25
RETRY_MAX_S: Final = 5.0

_log = get_logger("workers")


class Gate:
    """One hypervisor's. `on_change(hypervisor, is_closed)` is called when it closes and when it opens."""

    def __init__(self, hypervisor: str, on_change: Callable[[str, bool], None], retry_max_s: float) -> None:
        self._hypervisor = hypervisor
        self._on_change = on_change
        self._retry_max_s = retry_max_s
        self._failures = 0
        self._is_tried = False
        self._next_try_s = 0.0
        self._closed_at_s = 0.0
        self._problem: LochnessError | None = None
        self._changed = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        return self._failures >= CLOSE_AFTER

    async def enter(self, limit_s: float) -> bool:
        """Wait for a turn; answers whether it is the one try of a closed gate, which `asking` wants to know.

        Raises DeadlineError, with the agent's last failure as its text, when no turn came within `limit_s`.
        """
        deadline_s = time.monotonic() + limit_s
        while self.is_closed:
            now_s = time.monotonic()
            if not self._is_tried and now_s >= self._next_try_s:
                self._is_tried = True
                return True
            if now_s >= deadline_s:
                raise DeadlineError(self._problem.message if self._problem else "no answer") from self._problem
            until_s = deadline_s if self._is_tried else min(deadline_s, self._next_try_s)
            # No wait_for: it swallows a cancellation that comes with the news, and a turn would go to who has left.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until_s - now_s)):
                    await self._changed.wait()
        return False

    @contextmanager
    def asking(self, is_try: bool) -> Iterator[None]:
        """One request; whether there was an answer is learned from how the block ends."""
        try:
            yield
        except (UnavailableError, AmbiguousWriteError) as error:
            self._failed(error)
            raise
        except (HTTPCodeError, AgentJobError):
            self._answered()
            raise
        else:
            self._answered()
        finally:
            if is_try:
                self._is_tried = False
                self._tell()

    def _failed(self, error: LochnessError) -> None:
        was_closed = self.is_closed
        self._failures += 1
        self._problem = error
        if self.is_closed:
            pause_s = min(RETRY_MIN_S * 2.0 ** min(self._failures - CLOSE_AFTER, 16), self._retry_max_s)
            self._next_try_s = time.monotonic() + pause_s
        if self.is_closed and not was_closed:
            self._closed_at_s = time.monotonic()
            _log.warning(events.AGENT_LOST, hypervisor=self._hypervisor, error=error.message, unanswered=self._failures)
            self._on_change(self._hypervisor, True)

    def _answered(self) -> None:
        was_closed = self.is_closed
        self._failures = 0
        self._problem = None
        if was_closed:
            lost_s = round(time.monotonic() - self._closed_at_s, 3)
            _log.info(events.AGENT_RECOVERED, hypervisor=self._hypervisor, lost_s=lost_s)
            self._on_change(self._hypervisor, False)
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Gates:
    """Those of all hypervisors that were asked for something."""

    def __init__(self, on_change: Callable[[str, bool], None], *, retry_max_s: float = RETRY_MAX_S) -> None:
        self._on_change = on_change
        self._retry_max_s = retry_max_s
        self._gates: dict[str, Gate] = {}

    def of(self, hypervisor: str) -> Gate:
        """The hypervisor's."""
        gate = self._gates.get(hypervisor)
        if gate is None:
            gate = self._gates[hypervisor] = Gate(hypervisor, self._on_change, self._retry_max_s)
        return gate
