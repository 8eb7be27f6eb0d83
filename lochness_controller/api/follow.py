"""Server-sent events: GET /events, every change of the cluster as it happens, resumable from any revision.

    curl -N localhost:17000/events?kind=guest,job
    id: 1201
    event: guest
    data: {"revision":1201,"kind":"guest","id":"...","part":"status","action":"set","value":{...}}

Invariants:
1. A stream that is resumed from a revision (Last-Event-ID, or ?since=) tells every change after it, in order, each
   once. When the store has forgotten them, the answer is 410: read the present, then follow anew.
2. Only the last change of a revision carries the id: who is cut off in the middle of one is told all of it again.
3. A stream that has nothing to tell says so every `KEEP_ALIVE_S`, with the revision it has come to. A resumed one says
   it for the first time as soon as it has told all that there was when it was asked for.
4. When the store went back (emptied, restored from a backup) every stream ends, and is answered with 410 when it comes
   again: what it has told is not so any more.
5. A slow client costs nothing but its own connection: it is read to from the window of `changes`, or, when it is slower
   than that, from the store's history.

Not guaranteed: that a stream lives on. At the controller's end it is closed; clients resume at another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Final
from weakref import WeakSet

import msgspec
from litestar import Request, get
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream

from lochness import keys
from lochness.errors import CompactedError, OverloadedError, UnavailableError, ValidationError
from lochness.store.protocol import Change, Store, Watch
from lochness_controller.api.changes import KIND_OF_PATH, Changes, ends_of_revisions, path_of, told
from lochness_controller.api.documents import answers
from lochness_controller.api.given import GivenContext
from lochness_controller.api.mirror import Mirror

KEEP_ALIVE_S: Final = 15.0
LISTENERS_MAX: Final = 200
#: Of these, reading the store's history: each holds a stream to etcd and, while it reads, a thread.
REPLAYS_MAX: Final = 8
#: So many changes are written in one go.
CHUNK_CHANGES: Final = 256
#: What a browser waits before it comes again.
RETRY_MS: Final = 2000

_REPLAY_WAIT_S: Final = 1.0
_KINDS: Final = frozenset(KIND_OF_PATH.values())


class Listeners:
    """Who follows the changes, and how many may."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        # A feed whose client has gone before it began is never ended by anybody.
        self._feeds: WeakSet[_Feed] = WeakSet()
        self.replaying = 0

    def enter(self, feed: _Feed) -> None:
        """One more. Raises OverloadedError."""
        if len(self._feeds) >= LISTENERS_MAX:
            raise OverloadedError(f"{LISTENERS_MAX} clients follow the events already", reason="too_many_listeners")
        self._feeds.add(feed)

    def leave(self, feed: _Feed) -> None:
        self._feeds.discard(feed)

    def begin_replay(self, store: Store, since: int) -> Watch:
        """Open the store's history. Raises OverloadedError, UnavailableError."""
        if self.replaying >= REPLAYS_MAX:
            raise OverloadedError(f"{REPLAYS_MAX} clients read old events already", reason="too_many_listeners")
        watch = store.watch(keys.ROOT, start_revision=since + 1)
        self.replaying += 1
        return watch

    def end_replay(self, watch: Watch) -> None:
        self.replaying -= 1
        watch.close()


@get("/events", responses=answers(str, 200, 410, 429))
async def follow(
    context: GivenContext,
    mirror: NamedDependency[Mirror],
    listeners: NamedDependency[Listeners],
    request: Request[Any, Any, Any],
    since: FromQuery[int | None] = None,
    kind: FromQuery[str] = "",
) -> Stream:
    """Every change as a server-sent event, from now on, or after the revision `since` (or the header Last-Event-ID).

    `kind` names kinds to tell of, with commas between them; all by default.
    """
    kinds = _kinds(kind)
    start = _start(request.headers.get("last-event-id", ""), since)
    restores = listeners.changes.restores  # before the reading: what comes between ends the stream
    now = await sync_to_thread(mirror.read_revision)
    if start is not None and start > now:
        raise CompactedError(f"revision {start} is yet to come, the store is at {now}", compact_revision=now)
    feed = _Feed(context.store, listeners, kinds, now if start is None else start, now, restores)
    listeners.enter(feed)
    await feed.open()
    return Stream(
        feed.chunks(),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


class _Feed:
    """What one client is sent."""

    def __init__(
        self, store: Store, listeners: Listeners, kinds: Collection[str], revision: int, now: int, restores: int
    ) -> None:
        self._store = store
        self._listeners = listeners
        self._changes = listeners.changes
        self._kinds = kinds
        self._start = revision
        self._revision = revision
        # Where the store was when the stream was asked for, until it was told that the stream has come there.
        self._catching_up_to = now if revision < now else 0
        self._restores = restores
        self._watch: Watch | None = None
        self._first: bytes = b""

    def __del__(self) -> None:
        self._end_replay()

    async def open(self) -> None:
        """See that the revision can be had. Raises CompactedError, OverloadedError, UnavailableError."""
        if self._changes.is_closed:
            raise UnavailableError("the controller is ending")
        if self._changes.after(self._revision, 1) is None and self._revision <= self._changes.last:
            self._watch = self._listeners.begin_replay(self._store, self._revision)
            try:
                self._first = await self._replayed()
            except BaseException:
                self._end_replay()
                raise

    async def chunks(self) -> AsyncIterator[bytes]:
        """The stream's body. Its first id is where it begins, not what `_first` has come to: who is cut off in between
        resumes from it."""
        try:
            yield f"retry: {RETRY_MS}\n".encode() + _signal("ready", self._start) + self._first
            with self._changes.heard() as news:
                while not self._changes.is_closed:
                    try:
                        chunk = await self._next(news)
                    except (CompactedError, OverloadedError, UnavailableError) as error:
                        # It comes again with the last id it has, and is answered by status then.
                        yield f": {error.reason}\n\n".encode()
                        return
                    if chunk or not self._changes.is_closed:
                        yield chunk or _signal("alive", self._revision)
        finally:
            self._end_replay()
            self._listeners.leave(self)

    async def _next(self, news: asyncio.Event) -> bytes:
        """What comes next, b"" when nothing came for KEEP_ALIVE_S, or all is told that there was at the start."""
        deadline_s = asyncio.get_running_loop().time() + KEEP_ALIVE_S
        while (remaining_s := deadline_s - asyncio.get_running_loop().time()) > 0 and not self._changes.is_closed:
            news.clear()
            if self._changes.restores != self._restores:
                raise CompactedError("the store was restored from a backup", compact_revision=self._changes.first)
            chunk = await self._replayed() if self._watch is not None else self._from_window()
            if chunk:
                return chunk
            if self._catching_up_to and self._watch is None and self._revision >= self._catching_up_to:
                self._catching_up_to = 0
                return b""
            if self._watch is None:
                try:
                    await asyncio.wait_for(news.wait(), remaining_s)
                except TimeoutError:
                    break
        return b""

    def _from_window(self) -> bytes:
        found = self._changes.after(self._revision, CHUNK_CHANGES)
        if found is None:
            if self._revision <= self._changes.last:
                self._watch = self._listeners.begin_replay(self._store, self._revision)
            return b""  # else the window has yet to come to where this client is
        changes, self._revision = found
        return self._written(changes)

    async def _replayed(self) -> bytes:
        """The history's next piece; when it has come to the window, the window goes on."""
        assert self._watch is not None
        batch = await sync_to_thread(self._watch.next, _REPLAY_WAIT_S)
        if batch is None:
            return b""
        self._revision = batch.revision
        if self._revision >= self._changes.first:
            self._end_replay()
        return self._written(told(batch.changes))

    def _end_replay(self) -> None:
        if self._watch is not None:
            watch, self._watch = self._watch, None
            self._listeners.end_replay(watch)

    def _written(self, changes: Sequence[Change]) -> bytes:
        pieces: list[bytes] = []
        is_id_due = False
        for change, is_last in ends_of_revisions(changes):
            kind = KIND_OF_PATH[path_of(change.key)]
            is_id_due = kind not in self._kinds
            if not is_id_due:
                pieces.append(_event(kind, change, is_last=is_last))
        if pieces and is_id_due:
            pieces.append(_signal("alive", changes[-1].mod_revision))
        return b"".join(pieces)


def _event(kind: str, change: Change, *, is_last: bool) -> bytes:
    path = path_of(change.key)
    id, part = ("", change.key[len(path) :]) if kind == "config" else keys.object_id(change.key, path)
    data = msgspec.json.encode(
        {
            "revision": change.mod_revision,
            "kind": kind,
            "id": id,
            "part": part,
            "action": "gone" if change.value is None else "set",
            "value": _value(change.value),
        }
    )
    id_line = f"id: {change.mod_revision}\n".encode() if is_last else b""
    return id_line + b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _value(value: bytes | None) -> Any:
    """The key's JSON; text where it is none."""
    if value is None:
        return None
    if value[:1] == b"{":
        try:
            msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return value.decode(errors="replace")
        return msgspec.Raw(value)
    return value.decode(errors="replace")


def _signal(name: str, revision: int) -> bytes:
    return f'id: {revision}\nevent: {name}\ndata: {{"revision":{revision}}}\n\n'.encode()


def _kinds(given: str) -> frozenset[str]:
    kinds = frozenset(filter(None, (part.strip() for part in given.split(","))))
    if unknown := sorted(kinds - _KINDS):
        text = f"kind must be of {', '.join(sorted(_KINDS))}, got {', '.join(unknown)}"
        raise ValidationError(text, field="kind")
    return kinds or _KINDS


def _start(last_event_id: str, since: int | None) -> int | None:
    """The revision to begin after. A client that comes again sends both: the header is the newer."""
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 20):
            raise ValidationError(f"Last-Event-ID must be a revision, got {last_event_id!r}", field="Last-Event-ID")
        return int(last_event_id)
    if since is not None and not 0 <= since < 1 << 63:
        raise ValidationError(f"since must be a revision, got {since}", field="since")
    return since
