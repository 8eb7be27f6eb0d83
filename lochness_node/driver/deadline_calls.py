"""How does a call into a library that may hang end in time?

Each call runs on a thread of its own; the caller waits for it until its deadline, then leaves it behind. A call left
behind keeps its place until it comes back, and its key's further calls are refused meanwhile: one hung guest costs one
place, not all of them.

Invariants:
1. `run` returns or raises within its limit, whatever the function does.
2. At most `max_calls` functions run at any time, those left behind included.
3. A function that asks its `StillWanted` before it changes something begins no change after its caller has left.
4. While a call left behind for a key has not come back, `run` with that key raises UnavailableError at once.
5. The threads are daemons: one that hangs does not hold up the end of the process.

Not guaranteed: that a function left behind had no effect; it may still finish.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from lochness.errors import DeadlineError, UnavailableError

Answer = TypeVar("Answer")
#: Given to every function: raises DeadlineError on the call's own thread once its caller has left.
StillWanted = Callable[[], None]


class _Call(Generic[Answer]):
    """One function on its way. `abandoned` and `finished` are guarded by the lock of DeadlineCalls."""

    def __init__(self, function: Callable[[StillWanted], Answer], key: str) -> None:
        self.function = function
        self.key = key
        self.done: Final = threading.Event()
        self.abandoned = False
        self.finished = False
        self.answer: Answer | None = None
        self.error: BaseException | None = None


class DeadlineCalls:
    """Runs functions within a time limit. Safe to share between threads."""

    def __init__(self, name: str, *, max_calls: int = 8) -> None:
        self._name = name
        self._max_calls = max_calls
        self._lock = threading.Lock()
        self._running = 0
        self._place_is_free = threading.Condition(self._lock)
        self._stuck: dict[int, _Call[object]] = {}

    def stuck(self) -> int:
        """How many calls were left behind and have not come back yet."""
        with self._lock:
            return len(self._stuck)

    def run(
        self,
        function: Callable[[StillWanted], Answer],
        *,
        timeout_s: float,
        key: str = "",
        on_late_return: Callable[[], None] | None = None,
    ) -> Answer:
        """What `function` answers or raises, within `timeout_s`.

        `on_late_return` runs on the call's thread when it comes back after it was left behind. Raises DeadlineError
        when the limit passed, UnavailableError when `key`'s previous call still hangs or no place became free.
        """
        deadline_s = time.monotonic() + timeout_s
        call = _Call(function, key)
        self._take_place(call, deadline_s)
        thread = threading.Thread(
            target=self._perform, args=(call, on_late_return), name=f"{self._name}-call", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            self._give_place(call)
            raise UnavailableError(f"{self._name}: no thread for another call") from error
        call.done.wait(max(0.0, deadline_s - time.monotonic()))
        with self._lock:
            if not call.finished:
                call.abandoned = True
                self._stuck[id(call)] = call  # type: ignore[assignment]  # only its key is read from there
                raise DeadlineError(f"{self._name} did not answer within {timeout_s:g} s", timeout_s=timeout_s)
        if call.error is not None:
            raise call.error
        return call.answer  # type: ignore[return-value]  # no error, so the function's own answer

    def _take_place(self, call: _Call[Answer], deadline_s: float) -> None:
        with self._lock:
            while True:
                if call.key and any(other.key == call.key for other in self._stuck.values()):
                    raise UnavailableError(f"{self._name}: an earlier call for {call.key} still hangs", key=call.key)
                if len(self._stuck) >= self._max_calls:
                    raise UnavailableError(f"{self._name}: {len(self._stuck)} calls hang", stuck=len(self._stuck))
                if self._running < self._max_calls:
                    self._running += 1
                    return
                if not self._place_is_free.wait(max(0.0, deadline_s - time.monotonic())):
                    raise UnavailableError(f"{self._name}: all {self._max_calls} calls are busy", busy=self._running)

    def _give_place(self, call: _Call[Answer]) -> bool:
        """End the call's stay; answers whether it had been left behind."""
        with self._lock:
            call.finished = True
            self._running -= 1
            self._stuck.pop(id(call), None)
            self._place_is_free.notify()
            return call.abandoned

    def _still_wanted(self, call: _Call[Answer]) -> None:
        with self._lock:
            if call.abandoned:
                raise DeadlineError(f"{self._name} answered too late; the rest of the call was not begun")

    def _perform(self, call: _Call[Answer], on_late_return: Callable[[], None] | None) -> None:
        try:
            call.answer = call.function(lambda: self._still_wanted(call))
        except BaseException as error:  # handed to the caller, who raises it
            call.error = error
        abandoned = self._give_place(call)
        call.done.set()
        if abandoned and on_late_return is not None:
            on_late_return()
