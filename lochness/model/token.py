"""A token: a client's name, what it may do, and what its secret is known by."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from lochness.errors import ValidationError
from lochness.model.record import Record, normalized_id, require, require_id

Role = Literal["read", "operate"]

NAME_MAX_LETTERS = 128


class TokenRecord(Record):
    """tokens/ID. `name` says whose it is, `sha256` is that of the secret, which nobody keeps.

    `role`: "read" changes nothing, "operate" may do everything. Times are RFC 3339, `expires_at` "" for never.
    `created_by` is the name of the token that made it ("": the machine's administrator).
    """

    id: str = ""
    name: str = ""
    role: Role = "read"
    created_at: str = ""
    expires_at: str = ""
    created_by: str = ""
    sha256: str = ""

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        text = f"name must be 1 to {NAME_MAX_LETTERS} printable letters, got {self.name!r}"
        require(self.name.isprintable() and 0 < len(self.name.strip()) <= NAME_MAX_LETTERS, text, "name")
        self.expiry()

    def expiry(self) -> datetime | None:
        """When it ends, None for never. Raises ValidationError."""
        if not self.expires_at:
            return None
        try:
            moment = datetime.fromisoformat(self.expires_at)
        except ValueError as error:
            text = f"expires_at must be a time like 2030-01-31T12:00:00Z, got {self.expires_at!r}"
            raise ValidationError(text, field="expires_at") from error
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def is_expired(self, now: datetime) -> bool:
        expiry = self.expiry()
        return expiry is not None and expiry <= now

    def shown(self) -> dict[str, Any]:
        """What others may see of it."""
        fields = self.to_fields()
        del fields["sha256"]
        return fields
