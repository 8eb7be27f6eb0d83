"""How is a request that comes twice carried out once? `Idempotency-Key`: an ASGI application around another.

Invariants:
1. A key is claimed in the store before its request is carried out, with a compare: of two at once, at whichever
   controllers, one is carried out and the other gets its answer.
2. The same key with the same request gets the same answer, for at least `KEPT_S`; with another request 422.
3. A request whose outcome is not known (the controller died, the store's answer was lost) is carried out again by who
   comes next with the key, under the same ids (`fresh_ids`): what was made is found, not made twice.
4. Keys of different clients are different keys.

Not guaranteed: the same answer after an error of ours (5xx) or a refusal for now (429): the next one is a new attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from lochness import keys
from lochness.errors import AmbiguousWriteError, ConflictError, LeaseNotFoundError, LochnessError
from lochness.ids import new_id
from lochness.store.protocol import Key, KeyUnchanged, Put, Store
from lochness_controller.api.answers import send_json
from lochness_controller.api.bodies import again, read_body
from lochness_controller.api.fresh_ids import Seed, seeded
from lochness_controller.api.problems import problem, problem_of, reason_of, status_of

KEY_HEADER: Final = b"idempotency-key"
KEPT_S: Final = 24 * 3600
#: One lease serves the keys of an hour, so they live up to an hour longer.
LEASE_SHARED_S: Final = 3600
#: How long who comes second waits for the first one's answer.
WAIT_LIMIT_S: Final = 30.0
#: Answers beyond it are not kept; who repeats such a request carries it out again, under the same ids.
ANSWER_BYTES_MAX: Final = 512 << 10

_POLL_S: Final = 0.1
_CLAIM_ATTEMPTS_MAX: Final = 10
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: Of an answer's headers, what is the server's business of that moment.
_NOT_KEPT: Final = frozenset({b"content-length", b"date", b"server"})


class KeptRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """requests/HASH. `request` is the digest of what was asked, `seed` what its ids follow from, `controller` who
    carries it out ("": nobody now), `code` the answer's status (0: there is none yet)."""

    request: str
    seed: str
    controller: str = ""
    code: int = 0
    headers: list[tuple[str, str]] = []
    body: str = ""


@dataclass(slots=True)
class _Claim:
    """A kept request as it stands at `revision`; `is_ours`: it is for us to carry out."""

    kept: KeptRequest
    revision: int
    is_ours: bool = False
    is_taken_over: bool = False


@dataclass(slots=True)
class _Captured:
    """An answer on its way out."""

    code: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code, self.headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    async def pass_on(self, send: Send, *more: tuple[bytes, bytes]) -> None:
        headers = [*self.headers, *more]
        await send({"type": "http.response.start", "status": self.code, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": False})


class Repeats:
    """Around `inner`, as the controller `id`. `body_max_bytes` bounds what is read of a request."""

    def __init__(
        self,
        inner: ASGIApp,
        store: Store,
        *,
        id: str,
        controllers_alive: Callable[[], Collection[str]],
        body_max_bytes: int,
    ) -> None:
        self._inner = inner
        self._store = store
        self._id = id
        self._controllers_alive = controllers_alive
        self._body_max_bytes = body_max_bytes
        self._running: dict[str, asyncio.Event] = {}
        self._lease = (0, 0.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope["headers"] if name == KEY_HEADER]
        if scope["type"] != ScopeType.HTTP or not given or scope["method"] in _READING:
            await self._inner(scope, receive, send)
            return
        text = given[0].decode("latin-1")
        if len(given) > 1 or not _KEY.fullmatch(text):
            await _refuse(send, 400, "Idempotency-Key must be given once, 1 to 255 visible ASCII letters", "invalid")
            return
        try:
            body, is_complete = await read_body(receive, self._body_max_bytes)
        except HTTPException as error:  # too slow, or the client has gone
            await _refuse(send, error.status_code, error.detail, reason_of(error.status_code))
            return
        if not is_complete:
            # Too large: it is refused there.
            await self._inner(scope, again(body, receive, is_all=False), send)
            return
        who = scope.get("state", {}).get("token", "")
        key = keys.request(hashlib.sha256(f"{who}\0{text}".encode()).hexdigest())
        try:
            await self._once(key, scope, body, receive, send)
        except LochnessError as error:
            await _answer_problem(send, error)

    async def _once(self, key: str, scope: HTTPScope, body: bytes, receive: Receive, send: Send) -> None:
        request = _digest(scope, body)
        deadline_s = asyncio.get_running_loop().time() + WAIT_LIMIT_S
        while True:
            claim = None if key in self._running else await self._claimed(key, request)
            if claim is not None and claim.kept.request != request:
                text = "this Idempotency-Key was used for another request within the last 24 h"
                await _refuse(send, 422, text, "idempotency_key_reused")
                return
            if claim is not None and claim.kept.code:
                await _kept_answer(claim.kept).pass_on(send, (b"idempotency-replayed", b"true"))
                return
            if claim is not None and claim.is_ours:
                await self._carry_out(key, claim, scope, again(body, receive), send)
                return
            remaining_s = deadline_s - asyncio.get_running_loop().time()
            if remaining_s <= 0:
                text = f"a request with this Idempotency-Key is not done after {WAIT_LIMIT_S:g} s"
                await _refuse(send, 409, text, "request_in_progress", (b"retry-after", b"1"))
                return
            await self._wait(key, remaining_s)

    async def _claimed(self, key: str, request: str) -> _Claim:
        """The claim on the key; while it is ours the key counts as running here."""
        done = self._running[key] = asyncio.Event()
        is_ours = False
        try:
            claim = await asyncio.to_thread(self._claim, key, request)
            is_ours = claim.is_ours
        finally:
            if not is_ours:
                self._end(key, done)
        return claim

    async def _wait(self, key: str, limit_s: float) -> None:
        """Until the one who carries it out here is done, or for a little while when it is done elsewhere."""
        running = self._running.get(key)
        if running is None:
            await asyncio.sleep(min(_POLL_S, limit_s))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(running.wait(), limit_s)

    def _claim(self, key: str, request: str) -> _Claim:
        """The kept request, which is made or taken over when nobody carries it out."""
        for _ in range(_CLAIM_ATTEMPTS_MAX):
            item = self._store.read(Key(key)).one()
            if item is None:
                kept, revision = KeptRequest(request=request, seed=new_id(), controller=self._id), 0
                is_taken_over = False
            else:
                kept, revision = msgspec.json.decode(item.value, type=KeptRequest), item.mod_revision
                is_elsewhere = kept.controller != self._id and kept.controller in self._controllers_alive()
                if kept.request != request or kept.code or is_elsewhere:
                    return _Claim(kept, revision)
                kept.controller = self._id
                is_taken_over = True
            try:
                written = self._put(key, kept, revision)
            except (ConflictError, AmbiguousWriteError):
                continue  # somebody else was faster, or we were: look
            return _Claim(kept, written, is_ours=True, is_taken_over=is_taken_over)
        raise ConflictError(f"the Idempotency-Key was contended {_CLAIM_ATTEMPTS_MAX} times", reason="conflict")

    async def _carry_out(self, key: str, claim: _Claim, scope: HTTPScope, receive: Receive, send: Send) -> None:
        done = self._running[key]
        answer = _Captured()
        try:
            with seeded(Seed(claim.kept.seed, claim.is_taken_over)):
                await self._inner(scope, receive, answer.take)
        finally:
            # Also when the client has gone meanwhile: the next one is to find what became of it.
            keeping = asyncio.create_task(asyncio.to_thread(self._keep, key, claim, answer))
            keeping.add_done_callback(lambda _: self._end(key, done))
        await asyncio.shield(keeping)
        await answer.pass_on(send)

    def _end(self, key: str, done: asyncio.Event) -> None:
        self._running.pop(key, None)
        done.set()

    def _keep(self, key: str, claim: _Claim, answer: _Captured) -> None:
        """Keep the answer where it is final; else leave the request to who comes next with the key."""
        kept = claim.kept
        is_final = 200 <= answer.code < 500 and answer.code != 429 and len(answer.body) <= ANSWER_BYTES_MAX
        kept.controller = ""
        if is_final:
            kept.code = answer.code
            kept.body = answer.body.decode()
            kept.headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in answer.headers
                if name.lower() not in _NOT_KEPT
            ]
        try:
            self._put(key, kept, claim.revision)
        except LochnessError:
            return  # it stands there as begun by us, and we do not carry it out any more: it is taken over

    def _put(self, key: str, kept: KeptRequest, revision: int) -> int:
        value = msgspec.json.encode(kept)
        for is_last in (False, True):
            try:
                return self._store.commit((KeyUnchanged(key, revision),), (Put(key, value, self._current_lease()),))
            except LeaseNotFoundError:
                self._lease = (0, 0.0)
                if is_last:
                    raise
        raise AssertionError("unreachable")

    def _current_lease(self) -> int:
        lease_id, granted_at_s = self._lease
        if not lease_id or time.monotonic() - granted_at_s > LEASE_SHARED_S:
            granted_at_s = time.monotonic()
            lease_id = self._store.grant_lease(KEPT_S + LEASE_SHARED_S)
            self._lease = (lease_id, granted_at_s)
        return lease_id


def _digest(scope: HTTPScope, body: bytes) -> str:
    parts = (scope["method"].encode(), scope["path"].encode(), bytes(scope["query_string"]), body)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _kept_answer(kept: KeptRequest) -> _Captured:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept.headers]
    body = kept.body.encode()
    headers.append((b"content-length", str(len(body)).encode()))
    return _Captured(kept.code, headers, bytearray(body))


async def _answer_problem(send: Send, error: LochnessError) -> None:
    await send_json(send, status_of(error), problem_of(error))


async def _refuse(send: Send, code: int, message: str, reason: str, *headers: tuple[bytes, bytes]) -> None:
    await send_json(send, code, problem(message, code, reason), headers)
