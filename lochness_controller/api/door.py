"""Who may do what? Tokens, roles, how many at a time, and a word in the journal on every mutation.

An ASGI application around another. `state` of a request that is let in has "who" (the token's name, "anonymous") and
"token" (its id, "" for none).

Invariants:
1. Where tokens are required, nothing but OPEN_PATHS is answered without one: 401. A token of the role "read" changes
   nothing, and sees no tokens: 403.
2. A token that was removed is refused as soon as the watch has told, after `TRUSTED_S` at the latest.
3. Every mutation, also one that is refused, is logged once with who, from where, what, the status and the request id.
4. More than `requests_max` requests at a time are answered 429; who waits for a job, follows the events or asks whether
   the process lives is not counted: they hold no thread, and one that is busy is not to be taken for dead.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from litestar.concurrency import sync_to_thread
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from lochness import events, keys
from lochness.clock import Clock
from lochness.errors import LochnessError, ValidationError
from lochness.http_connection import bounded_body
from lochness.log import get_logger
from lochness.model.token import TokenRecord
from lochness.store.protocol import Key, Store, WatchBatch
from lochness.tokens import parse_token
from lochness_controller.api.answers import JOB_ID_HEADER, send_json
from lochness_controller.api.noted import noting
from lochness_controller.api.problems import problem, problem_of, status_of

OPEN_PATHS: Final = ("/", "/healthz", "/readyz")
#: The web page's own files; it asks its user for a token.
OPEN_PREFIX: Final = "/page/"
TRUSTED_S: Final = 60.0
_KNOWN_MAX: Final = 10_000

_SLASHES: Final = re.compile("/+")
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: They change nothing: questions that do not fit into a path.
_READING_POSTS: Final = frozenset({"/placement"})
_JOB_ID: Final = JOB_ID_HEADER.lower().encode()
_ANONYMOUS: Final = "anonymous"

_log = get_logger("api")


class KnownTokens:
    """Tokens as the store has them, remembered while a watch says that they are so. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, tuple[TokenRecord, float]] = {}
        self._changes = 0

    def take(self, batch: WatchBatch) -> None:
        """Forget what has changed."""
        changed = [keys.last_part(change.key) for change in batch.changes if change.key.startswith(keys.TOKEN_PATH)]
        if changed:
            with self._lock:
                self._changes += 1
                for id in changed:
                    self._known.pop(id, None)

    def forget(self, _revision: int, _went_back: bool) -> None:
        """Changes were missed."""
        with self._lock:
            self._changes += 1
            self._known.clear()

    def remembered(self, id: str) -> TokenRecord | None:
        """The token if it is known without asking the store."""
        with self._lock:
            record, read_at_s = self._known.get(id, (None, 0.0))
        return record if time.monotonic() - read_at_s <= TRUSTED_S else None

    def read(self, id: str) -> TokenRecord | None:
        """The token in the store. Raises UnavailableError."""
        with self._lock:
            changes = self._changes
        item = self._store.read(Key(keys.token(id))).one()
        if item is None:
            return None
        record = TokenRecord.from_json(item.value)
        with self._lock:
            if changes == self._changes:  # else it may have been removed since
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[id] = (record, time.monotonic())
        return record


@dataclass(frozen=True, slots=True)
class _Refusal:
    code: int
    reason: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_ASK_FOR_ONE: Final = ((b"www-authenticate", b'Bearer realm="lochness"'),)
_NO_TOKEN: Final = _Refusal(401, "unauthorized", "a token is required (Authorization: Bearer)", _ASK_FOR_ONE)
_BAD_TOKEN: Final = _Refusal(401, "unauthorized", "the token is not known, or has expired", _ASK_FOR_ONE)


class Door:
    """Around `inner`. With `is_token_required` nobody comes in without one; one that is sent is always looked at."""

    def __init__(
        self, inner: ASGIApp, tokens: KnownTokens, clock: Clock, *, is_token_required: bool, requests_max: int
    ) -> None:
        self._inner = inner
        self._tokens = tokens
        self._clock = clock
        self._is_token_required = is_token_required
        self._requests_max = requests_max
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["who"], state["token"] = _ANONYMOUS, ""
        if not _changes_something(scope):
            await self._let_in(scope, receive, send)
            return
        with noting() as noted:
            await self._let_in(scope, receive, _Audit(scope, send, noted).send)

    async def _let_in(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        try:
            refusal = await self._refusal(scope)
        except LochnessError as error:
            await send_json(send, status_of(error), problem_of(error))
            return
        count = 1 if _is_counted(scope) else 0
        if refusal is None and count and self._requests >= self._requests_max:
            text = f"{self._requests_max} requests are being answered already"
            refusal = _Refusal(429, "too_many_requests", text, ((b"retry-after", b"1"),))
        if refusal is not None:
            await send_json(send, refusal.code, problem(refusal.message, refusal.code, refusal.reason), refusal.headers)
            return
        self._requests += count
        try:
            await self._inner(scope, bounded_body(receive), send)
        finally:
            self._requests -= count

    async def _refusal(self, scope: HTTPScope) -> _Refusal | None:
        """Why the request is not let in, None when it is. Raises UnavailableError."""
        path = _SLASHES.sub("/", scope["path"])  # as the router takes it
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return None
        if not given:
            return _NO_TOKEN if self._is_token_required else None
        scheme, _, text = given[0].partition(b" ")
        presented = parse_token(text.strip().decode("latin-1")) if scheme.lower() == b"bearer" else None
        if len(given) > 1 or presented is None:
            return _BAD_TOKEN if self._is_token_required else None
        record = self._tokens.remembered(presented.id) or await sync_to_thread(self._tokens.read, presented.id)
        try:
            is_good = record is not None and presented.fits(record) and not record.is_expired(self._clock.now())
        except ValidationError:
            is_good = False  # an end of its time that nobody can read
        if record is None or not is_good:
            return _BAD_TOKEN
        scope["state"]["who"], scope["state"]["token"] = record.name, record.id
        is_for_operators = _changes_something(scope) or path == "/tokens" or path.startswith("/tokens/")
        if record.role == "read" and is_for_operators:
            why = f"the token {record.name!r} has the role read: {scope['method']} {path} needs the role operate"
            return _Refusal(403, "forbidden", why)
        return None


class _Audit:
    """Says what became of a mutation, when its answer begins."""

    def __init__(self, scope: HTTPScope, send: Send, noted: Mapping[str, str]) -> None:
        self._scope = scope
        self._send = send
        self._noted = noted

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            state, client = self._scope["state"], self._scope.get("client")
            job = next((value.decode() for name, value in message["headers"] if name.lower() == _JOB_ID), "")
            _log.info(
                events.API_MUTATION_ANSWERED,
                who=state["who"],
                token=state["token"],
                client=client[0] if client else "",
                method=self._scope["method"],
                path=self._scope["path"],
                status=message["status"],
                **self._noted,
                **({"job": job} if job else {}),
            )
        await self._send(message)


def _changes_something(scope: HTTPScope) -> bool:
    return scope["method"] not in _READING and scope["path"] not in _READING_POSTS


def _is_counted(scope: HTTPScope) -> bool:
    """Whether the request may hold a thread for as long as it lasts."""
    path = scope["path"]
    waits = path == "/events" or (path.startswith("/jobs/") and b"wait_s=" in scope["query_string"])
    return not waits and path != "/healthz"
