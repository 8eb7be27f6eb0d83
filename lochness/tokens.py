"""How is a client's token made, kept and recognised?

    record, text = new_token("monitoring", "read", now)      # text is told once: lochness_ID_SECRET
    create_token(store, record)

Invariants:
1. The secret is kept nowhere; the store has its SHA-256. A secret of 32 random bytes needs no slower hash: there is
   nothing to guess.
2. Secrets are compared in a time that tells nothing of them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lochness import keys
from lochness.errors import ConflictError, NotFoundError
from lochness.ids import new_id, parse_id
from lochness.model.job import rfc3339
from lochness.model.token import Role, TokenRecord
from lochness.store.protocol import Delete, Key, KeyUnchanged, Prefix, Put, Store

SECRET_BYTES: Final = 32

_TEXT: Final = re.compile(r"lochness_(?P<id>[0-9a-f]{32})_(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Presented:
    """A token's text taken apart."""

    id: str
    secret: str

    def fits(self, record: TokenRecord) -> bool:
        """Whether it is the secret of `record`."""
        return hmac.compare_digest(_digest(self.secret), record.sha256)


def new_token(
    name: str, role: Role, now: datetime, *, expires_at: str = "", created_by: str = ""
) -> tuple[TokenRecord, str]:
    """A record to be saved, and the text to be told. Raises ValidationError."""
    id, secret = new_id(), secrets.token_urlsafe(SECRET_BYTES)
    record = TokenRecord(
        id=id,
        name=name,
        role=role,
        created_at=rfc3339(now),
        expires_at=expires_at,
        created_by=created_by,
        sha256=_digest(secret),
    )
    record.validate()
    return record, f"lochness_{id.replace('-', '')}_{secret}"


def parse_token(text: str) -> Presented | None:
    """`text` taken apart, None for what can not be a token."""
    match = _TEXT.fullmatch(text)
    return Presented(parse_id(match["id"]), match["secret"]) if match else None


def create_token(store: Store, record: TokenRecord) -> None:
    """Keep the record. Raises UnavailableError, AmbiguousWriteError."""
    key = keys.token(record.id)
    store.commit((KeyUnchanged(key, 0),), (Put(key, record.to_json()),))


def read_tokens(store: Store) -> list[TokenRecord]:
    """All of them, oldest first."""
    items = store.read(Prefix(keys.TOKEN_PATH)).ranges[0]
    return [TokenRecord.from_json(item.value) for item in sorted(items, key=lambda item: item.create_revision)]


def delete_token(store: Store, id: str) -> TokenRecord:
    """Remove it; whoever has its text is refused from now on. Raises NotFoundError."""
    key = keys.token(parse_id(id))
    item = store.read(Key(key)).one()
    if item is None:
        raise NotFoundError("token", id)
    try:
        store.commit((KeyUnchanged(key, item.mod_revision),), (Delete(key),))
    except ConflictError as error:  # a token never changes: somebody else has removed it
        raise NotFoundError("token", id) from error
    return TokenRecord.from_json(item.value)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
