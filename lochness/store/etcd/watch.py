"""How does one watch of etcd deliver every change once and in order, and say so when it can not?

Invariants:
1. A batch's `revision` is that of its last change or of a progress mark, never the answer's own: while a watch catches
   up, etcd puts the current revision on answers that do not reach that far.
2. The stream is opened one revision early and what comes before `start_revision` is dropped. etcd compacts away a
   deletion at exactly the compacted revision, and a watch from that revision would miss it without a word; opened
   early, it is refused as compacted.
3. A waiting `next` ends at once when the watch is closed, at the latest after its own timeout otherwise.
4. At most MAX_WAITING_BATCHES are held; a slow reader slows the stream down.
5. A stream that is silently dead is told to who waits in `next` within `silence_limit_s` of the last thing that came
   from it: after half of that the member is asked for its progress, which a living one answers at once. Only a reader
   that has caught up asks; to one that is slow, silence says nothing.

The answer to that question is a sign of life and nothing more: before 3.4.25 and 3.5.8 etcd gives it ahead of changes
that are still to be sent, so its revision is no mark to resume from.

Not guaranteed: that a dead stream is noticed while nobody calls `next`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from etcd3 import etcdrpc

from lochness.errors import CompactedError, LochnessError, UnavailableError
from lochness.store.etcd.members import REQUIRE_LEADER, Members
from lochness.store.protocol import Change, WatchBatch

MAX_WAITING_BATCHES: Final = 64
WATCH_SILENCE_LIMIT_S: Final = 10.0

_NO_WATCH: Final = -1  # the watch id of an answer to a question about progress
_DELETE: Final = 1  # mvccpb.Event.DELETE


class EtcdWatch:
    """An open watch, see `lochness.store.protocol.Watch`. `start` sends the request; `on_end` is told at the end."""

    def __init__(
        self,
        members: Members,
        *,
        key: bytes,
        range_end: bytes,
        start_revision: int,
        silence_limit_s: float,
        on_end: Callable[[EtcdWatch], None],
    ) -> None:
        self._members = members
        self._member = members.current
        self._on_end = on_end
        self._start_revision = start_revision
        create = {
            "key": key,
            "range_end": range_end,
            "start_revision": max(start_revision - 1, 1),
            "progress_notify": True,
        }
        self._to_send: queue.SimpleQueue[Any] = queue.SimpleQueue()  # None ends our half of the stream
        self._to_send.put(etcdrpc.WatchRequest(create_request=create))
        self._state = threading.Condition()
        self._batches: deque[WatchBatch] = deque()
        self._problem: LochnessError | None = None
        self._is_closed = False
        self._is_created = False
        self._silence_limit_s = silence_limit_s
        self._opened_at_s = time.monotonic()
        self._heard_at_s = self._opened_at_s
        self._asked_at_s: float | None = None
        self._ended = threading.Event()
        self._stream: Any = None

    def start(self) -> None:
        """Send the request; a daemon thread receives from here on. Raises UnavailableError."""
        try:
            self._stream = self._member.watch(self._requests(), metadata=REQUIRE_LEADER)
        except ValueError as error:  # gRPC's word for a closed channel
            self._end()
            raise UnavailableError("the store is closed") from error
        threading.Thread(target=self._receive, name="etcd-watch", daemon=True).start()

    def next(self, timeout_s: float) -> WatchBatch | None:
        """See `Watch.next`."""
        deadline_s = time.monotonic() + timeout_s
        with self._state:
            while True:
                if self._is_closed:
                    raise UnavailableError("the watch is closed")
                if self._batches:
                    self._state.notify_all()  # the receiver may wait for room, so it may not have listened
                    self._note_heard()
                    return self._batches.popleft()
                if self._problem is not None:
                    raise self._problem
                now_s = time.monotonic()
                look_again_s = self._check_liveness(now_s)
                if self._problem is None:
                    if now_s >= deadline_s:
                        return None
                    self._state.wait(min(deadline_s, look_again_s) - now_s)

    def close(self) -> None:
        """See `Watch.close`."""
        with self._state:
            self._is_closed = True
            self._batches.clear()
            self._state.notify_all()
        self._cancel()

    def _note_heard(self) -> None:
        self._heard_at_s = time.monotonic()
        self._asked_at_s = None

    def _check_liveness(self, now_s: float) -> float:
        """When to look again. Asks for a sign of life when it is time to, sets the problem when none has come."""
        if not self._is_created:
            due_s = self._opened_at_s + self._members.timeout_s
            if now_s >= due_s:
                self._fail(f"was not confirmed within {self._members.timeout_s:g} s")
            return due_s
        if self._asked_at_s is None:
            ask_at_s = self._heard_at_s + self._silence_limit_s / 2
            if now_s < ask_at_s:
                return ask_at_s
            self._asked_at_s = now_s
            self._to_send.put(etcdrpc.WatchRequest(progress_request={}))
        due_s = self._asked_at_s + self._silence_limit_s / 2
        if now_s >= due_s:
            self._fail(f"is dead, nothing came for {now_s - self._heard_at_s:.3g} s")
        return due_s

    def _fail(self, what: str) -> None:
        self._members.leave(self._member)
        self._problem = UnavailableError(f"etcd at {self._member.name}: a watch {what}")
        self._cancel()

    def _cancel(self) -> None:
        self._ended.set()
        self._to_send.put(None)
        if self._stream is not None:
            self._stream.cancel()

    def _requests(self) -> Iterator[Any]:
        # Waiting keeps our half open: what becomes of a watch that is half closed is not promised.
        while (request := self._to_send.get()) is not None:
            yield request

    def _receive(self) -> None:
        problem: LochnessError = UnavailableError(f"etcd at {self._member.name}: the watch was ended")
        try:
            for answer in self._stream:
                self._accept(answer)
        except grpc.RpcError as error:
            problem = self._members.translate(error, what="a watch", member=self._member, is_write=False)
            problem.__cause__ = error
            if not self._ended.is_set():  # else it was ended on our side, and the member is well
                self._members.leave(self._member)
        except LochnessError as error:
            problem = error
        finally:
            with self._state:
                self._problem = self._problem or problem
                self._state.notify_all()
            self._end()

    def _end(self) -> None:
        self._cancel()
        self._on_end(self)

    def _accept(self, answer: Any) -> None:
        """Queue what the answer brings. Raises CompactedError and UnavailableError when it brings the end."""
        if answer.compact_revision:
            raise CompactedError(
                f"a watch from revision {self._start_revision}: etcd is compacted up to {answer.compact_revision}",
                compact_revision=answer.compact_revision,
            )
        if answer.canceled:
            raise UnavailableError(f"etcd at {self._member.name} canceled a watch: {answer.cancel_reason}")
        with self._state:
            self._note_heard()
            self._is_created |= answer.created
        batch = self._batch(answer)
        if batch is None:
            return
        with self._state:
            self._state.wait_for(lambda: self._is_closed or len(self._batches) < MAX_WAITING_BATCHES)
            if not self._is_closed:
                self._batches.append(batch)
                self._state.notify_all()

    def _batch(self, answer: Any) -> WatchBatch | None:
        if not answer.events:
            is_ours = not answer.created and answer.watch_id != _NO_WATCH
            is_mark = is_ours and answer.header.revision >= self._start_revision
            return WatchBatch(answer.header.revision, ()) if is_mark else None
        changes = []
        for event in answer.events:
            kv = event.kv  # each time it is asked for makes another object
            revision = kv.mod_revision
            if revision >= self._start_revision:
                value = None if event.type == _DELETE else kv.value
                changes.append(Change(str(kv.key, "utf-8", "surrogateescape"), value, revision, kv.create_revision))
        return WatchBatch(changes[-1].mod_revision, tuple(changes)) if changes else None
