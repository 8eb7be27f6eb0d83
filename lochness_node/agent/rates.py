"""Does one client ask more than its share? Pure: the time is handed in.

1. A client may ask `per_s` times a second in the long run, and `burst` times at once.
2. Only `CLIENTS_MAX` clients are remembered, those who asked last. Who is forgotten begins anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

CLIENTS_MAX: Final = 4096


class Rates:
    """What each client has left. Not to be shared between threads."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        #: What was left of the burst, and when that was.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str, now_s: float) -> float:
        """0 when the client may ask now, which is then counted; else the seconds until it may. `now_s` is monotonic."""
        left, then_s = self._left.pop(client, (float(self._burst), now_s))
        left = min(self._burst, left + max(0.0, now_s - then_s) * self._per_s)
        may_ask = left >= 1
        self._left[client] = (left - 1 if may_ask else left, now_s)
        if len(self._left) > CLIENTS_MAX:
            self._left.popitem(last=False)
        return 0.0 if may_ask else (1 - left) / self._per_s
