"""Which snapshots are being read right now?

1. A snapshot that is being read is not deleted.
2. At most `DOWNLOADS_MAX` are read at a time: each stages a whole disk.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lochness.errors import UnavailableError

DOWNLOADS_MAX: Final = 2


class Downloads:
    """The downloads of this agent. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def reading(self, guest_id: str, name: str) -> Iterator[None]:
        """For as long as the snapshot is read. Raises UnavailableError when too many are."""
        key = (guest_id, name)
        with self._lock:
            if self._reading.total() >= DOWNLOADS_MAX:
                raise UnavailableError(f"{DOWNLOADS_MAX} snapshots are being downloaded already, try again later")
            self._reading[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading[key] -= 1

    def is_read(self, guest_id: str, name: str) -> bool:
        with self._lock:
            return self._reading[(guest_id, name)] > 0
