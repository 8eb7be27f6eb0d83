"""Tokens: /tokens, for those that may operate."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, RawBody

from lochness.errors import ValidationError
from lochness.model.job import rfc3339
from lochness.model.record import JSONObject
from lochness.model.token import Role, TokenRecord
from lochness.tokens import create_token, delete_token, new_token, read_tokens
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.documents import answers, takes_fields
from lochness_controller.api.edge import who_of
from lochness_controller.api.given import GivenClock, GivenContext
from lochness_controller.api.records import decoded

_TTL_MAX_S: Final = 10 * 366 * 86400


class NewToken(msgspec.Struct, kw_only=True):
    """What a token is made from. `ttl_s` is how long it lives; 0 for ever, or until `expires_at`."""

    name: str = ""
    role: Role = "read"
    expires_at: str = ""
    ttl_s: int = 0


class ShownToken(msgspec.Struct, kw_only=True):
    """What is told of a token; `token` only once, by the answer that made it."""

    id: str
    name: str
    role: Literal["read", "operate"]
    created_at: str
    expires_at: str
    created_by: str
    token: str = ""


def router() -> Router:
    """The routes."""
    return Router(path="/tokens", route_handlers=[list_tokens, create, remove])


@get("/", sync_to_thread=True, responses=answers(list[ShownToken], 200, 403))
def list_tokens(context: GivenContext) -> JSONLine:
    """All tokens, oldest first, without their secrets."""
    return JSONLine([record.shown() for record in read_tokens(context.store)])


@post("/", sync_to_thread=True, responses=answers(ShownToken, 201, 403), operation_class=takes_fields(NewToken))
def create(context: GivenContext, clock: GivenClock, request: Request[Any, Any, Any], body: RawBody) -> JSONLine:
    """Make a token. Its text is in this answer and nowhere else."""
    record, text = _made(decoded(body, NewToken, "a token's name and role"), clock.now(), who_of(request.scope))
    create_token(context.store, record)
    shown: JSONObject = {**record.shown(), "token": text}
    return JSONLine(shown, status_code=201, headers={"Cache-Control": "no-store"})


@delete("/{id:str}", sync_to_thread=True, status_code=200, responses=answers(ShownToken, 200, 403, 404))
def remove(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """Remove a token: who has it is refused from now on."""
    return JSONLine(delete_token(context.store, id).shown())


def _made(wanted: NewToken, now: datetime, who: str) -> tuple[TokenRecord, str]:
    if not 0 <= wanted.ttl_s <= _TTL_MAX_S:
        raise ValidationError(f"ttl_s must be 0 to {_TTL_MAX_S}, got {wanted.ttl_s}", field="ttl_s")
    if wanted.ttl_s and wanted.expires_at:
        raise ValidationError("ttl_s and expires_at exclude each other", field="ttl_s")
    expires_at = rfc3339(now + timedelta(seconds=wanted.ttl_s)) if wanted.ttl_s else wanted.expires_at
    return new_token(wanted.name, wanted.role, now, expires_at=expires_at, created_by=who)
