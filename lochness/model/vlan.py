"""A VLAN: a tag. A VLAN group: a set of tags that a guest's interface gets as one unit."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lochness.errors import ValidationError
from lochness.model.record import Metadata, Record, normalized_id, require_id

MIN_TAG: Final = 1
MAX_TAG: Final = 4095

Tag = Annotated[int, msgspec.Meta(ge=MIN_TAG, le=MAX_TAG)]


def parse_tag(value: int | str, field: str = "tag") -> int:
    """`value` as a tag. Raises ValidationError naming `field` unless it is a whole number from 1 to 4095."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and MIN_TAG <= int(text) <= MAX_TAG):
        raise ValidationError(f"{field} must be a number from {MIN_TAG} to {MAX_TAG}, got {text!r}", field=field)
    return int(text)


class VLANRecord(Record):
    """vlans/TAG/metadata. The tag is the VLAN's identity."""

    tag: Tag = MIN_TAG
    description: str = ""

    def validate(self) -> None:
        super().validate()
        parse_tag(self.tag)


class VLANGroupRecord(Record):
    """vlangroups/ID/metadata."""

    id: str = ""
    description: str = ""
    metadata: Metadata = {}

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
