"""How does the code above a store behave when one call of it fails? A store that fails on demand, around a real one.

Invariants:
1. Without an order it behaves as the store inside.
2. A fault "before" its effect leaves the store inside untouched; "after" means that the call took effect and its answer
   was lost.

Calls are counted from 1 over read, commit, grant_lease, keep_alive and revoke_lease together. To try every point of an
operation: run it once, look at `calls`, then run it once per call with `fail(n, ...)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

from lochness.errors import LochnessError, UnavailableError
from lochness.store.protocol import Compare, Operation, Reading, Selector, Store, Watch, WatchBatch

T = TypeVar("T")

Moment = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`error` is raised by one call, before or after the call takes effect in the store inside."""

    error: LochnessError
    moment: Moment


class FaultyStore:
    """A `Store` around `inner`.

    `on_call(number, name)` is called before each counted call and may wait: a slow store.
    """

    def __init__(self, inner: Store, *, on_call: Callable[[int, str], None] | None = None) -> None:
        self._inner = inner
        self.on_call = on_call
        #: The names of the counted calls so far, in order.
        self.calls: list[str] = []
        self._faults: dict[int, Fault] = {}
        self._lock = threading.Lock()
        self._watches: set[_FaultyWatch] = set()

    def fail(self, nth: int, error: LochnessError, *, moment: Moment) -> None:
        """Let the `nth` call from now on (1 is the next one) raise `error`, before or after its effect."""
        with self._lock:
            self._faults[len(self.calls) + nth] = Fault(error, moment)

    def drop_watches(self, error: LochnessError | None = None) -> int:
        """Break every open watch: its next `next` raises `error` (UnavailableError by itself). Answers how many."""
        with self._lock:
            watches = tuple(self._watches)
            self._watches.clear()
        for watch in watches:
            watch.drop(error if error is not None else UnavailableError("the watch was dropped on demand"))
        return len(watches)

    def _perform(self, name: str, call: Callable[[], T]) -> T:
        with self._lock:
            self.calls.append(name)
            number = len(self.calls)
            fault = self._faults.pop(number, None)
        if self.on_call is not None:
            self.on_call(number, name)
        if fault is not None and fault.moment == "before":
            raise fault.error
        answer = call()
        if fault is not None:
            raise fault.error
        return answer

    def read(self, *selectors: Selector, revision: int = 0) -> Reading:
        """See `Store.read`."""
        return self._perform("read", lambda: self._inner.read(*selectors, revision=revision))

    def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        """See `Store.commit`."""
        return self._perform("commit", lambda: self._inner.commit(compares, operations))

    def begin_commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> Callable[[], int]:
        """See `Store.begin_commit`. Counted, and carried out, when it is waited for."""
        return lambda: self.commit(compares, operations)

    def grant_lease(self, ttl_s: int) -> int:
        """See `Store.grant_lease`."""
        return self._perform("grant_lease", lambda: self._inner.grant_lease(ttl_s))

    def keep_alive(self, lease_id: int) -> int:
        """See `Store.keep_alive`."""
        return self._perform("keep_alive", lambda: self._inner.keep_alive(lease_id))

    def revoke_lease(self, lease_id: int) -> None:
        """See `Store.revoke_lease`."""
        self._perform("revoke_lease", lambda: self._inner.revoke_lease(lease_id))

    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        """See `Store.watch`. Not counted; `drop_watches` breaks it."""
        watch = _FaultyWatch(self._inner.watch(prefix, start_revision=start_revision), on_close=self._forget)
        with self._lock:
            self._watches.add(watch)
        return watch

    def _forget(self, watch: _FaultyWatch) -> None:
        with self._lock:
            self._watches.discard(watch)

    def close(self) -> None:
        """See `Store.close`. Closes the store inside."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _FaultyWatch:
    def __init__(self, inner: Watch, *, on_close: Callable[[_FaultyWatch], None]) -> None:
        self._inner = inner
        self._on_close = on_close
        self._problem: LochnessError | None = None

    def next(self, timeout_s: float) -> WatchBatch | None:
        """See `Watch.next`."""
        try:
            batch = self._inner.next(timeout_s)
        except UnavailableError:
            if self._problem is None:
                raise
            batch = None
        if self._problem is not None:
            raise self._problem
        return batch

    def drop(self, problem: LochnessError) -> None:
        self._problem = problem
        self._inner.close()

    def close(self) -> None:
        """See `Watch.close`."""
        self._on_close(self)
        self._inner.close()
