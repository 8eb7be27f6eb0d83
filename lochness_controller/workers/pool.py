"""Where do jobs run? On threads that are made when they are needed, and that never keep the process from ending.

`concurrent.futures` waits for its threads when the interpreter ends; a thread that waits ten seconds for an agent must
not make a stop last ten seconds.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

_IDLE_S: Final = 30.0


class ThreadPool:
    """At most `size` daemon threads; tasks beyond that wait in line. A task must not raise."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._open_tasks = 0

    def submit(self, task: Callable[[], None]) -> None:
        """Run `task` soon."""
        with self._lock:
            self._open_tasks += 1
            needs_thread = self._open_tasks > self._threads and self._threads < self._size
            if needs_thread:
                self._threads += 1
        self._tasks.put(task)
        if needs_thread:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._open_tasks >= self._threads:
                        continue  # a task has just come in that counts on this thread
                    self._threads -= 1
                    return
            try:
                task()
            finally:
                with self._lock:
                    self._open_tasks -= 1
