"""How do many changes become few transactions? Those that come while one is being committed go together.

Invariants:
1. A change is answered when it is durable, or with its own error: what is wrong with one change fails no other.
2. Whatever waits longest goes first; at most `WAITING_MAX` wait, more are refused.
3. A lone change waits for nobody.

Not guaranteed: the order of two changes that wait at the same time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from lochness.errors import ConflictError, OverloadedError
from lochness.store.protocol import MAX_TRANSACTION_OPS, Compare, DeletePrefix, Store, name_of
from lochness.transactions import Transaction, joined
from lochness_controller.rounds import Rounds

WAITING_MAX: Final = 4096
#: Transactions on their way at a time: while etcd syncs one to its disk the next one is made.
COMMITS_MAX: Final = 2


@dataclass(slots=True, eq=False)
class _Waiting:
    transaction: Transaction
    done: asyncio.Future[int]


class GroupCommit:
    """Commits to `store`, on `threads` (None: the event loop's own). Lives on one event loop, from the first `commit`
    on."""

    def __init__(self, store: Store, threads: Executor | None = None) -> None:
        self._store = store
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()
        self._rounds = Rounds(COMMITS_MAX, lambda: bool(self._waiting), lambda: self._commit(self._batch()))

    async def commit(self, transaction: Transaction) -> int:
        """Commit it together with others'; answers the revision. Raises what `Store.commit` does, OverloadedError."""
        if len(self._waiting) >= WAITING_MAX:
            raise OverloadedError(f"{WAITING_MAX} changes wait for the store already", reason="too_many_changes")
        waiting = _Waiting(transaction, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._rounds.begin()
        return await waiting.done

    def _batch(self) -> list[_Waiting]:
        """As many of those that wait longest as go into one transaction; etcd takes each key once."""
        batch: list[_Waiting] = []
        compares: set[Compare] = set()
        written: set[str] = set()
        removed: list[str] = []  # prefixes
        while self._waiting:
            more = self._waiting[0].transaction
            keys = {name_of(operation) for operation in more.operations}
            prefixes = [each.prefix for each in more.operations if isinstance(each, DeletePrefix)]
            compares |= set(more.compares)
            is_full = max(len(compares), len(written) + len(keys)) > MAX_TRANSACTION_OPS
            if batch and (is_full or not written.isdisjoint(keys) or _is_under(keys, removed)):
                break
            if batch and _is_under(written, prefixes):
                break
            written |= keys
            removed += prefixes
            batch.append(self._waiting.popleft())
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        transaction = batch[0].transaction if len(batch) == 1 else joined(each.transaction for each in batch)
        try:
            revision = await asyncio.get_running_loop().run_in_executor(self._threads, transaction.commit, self._store)
        except ConflictError as error:
            self._sort_out(batch, error)
        except Exception as error:  # theirs to handle, each for itself
            for each in batch:
                _fail(each, error)
        else:
            for each in batch:
                if not each.done.done():
                    each.done.set_result(revision)

    def _sort_out(self, batch: list[_Waiting], error: ConflictError) -> None:
        """Who has a compare that failed is told; the others wait again, in front."""
        failed = frozenset(error.keys)
        others = []
        for each in batch:
            own = [key for key in (name_of(compare) for compare in each.transaction.compares) if key in failed]
            if len(batch) == 1:
                _fail(each, error)
            elif own:  # what others wanted is none of its business
                _fail(each, ConflictError(f"changed meanwhile: {', '.join(own)}", keys=own, reason=error.reason))
            else:
                others.append(each)
        if len(others) == len(batch):  # the store named none of ours: each by itself will tell
            for each in others:
                self._rounds.add(self._commit([each]))
        else:
            self._waiting.extendleft(reversed(others))


def _is_under(keys: Iterable[str], prefixes: Sequence[str]) -> bool:
    return bool(prefixes) and any(key.startswith(prefix) for key in keys for prefix in prefixes)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
