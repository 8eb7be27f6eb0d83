"""Time as a parameter: what needs the time of day or a duration takes a `Clock`.

Not guaranteed: that `now` never goes backwards; use `monotonic_s` for anything that waits or measures.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable


@runtime_checkable  # the web framework checks what it injects
class Clock(Protocol):
    def now(self) -> datetime:
        """The time of day, UTC, with its zone."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()
