"""IDs in one spelling. Pure.

Invariant: an ID inside Loch Ness is a UUID in lower-case dashed form; `parse_id` is the one way in.
"""

from __future__ import annotations

import os
import re
import uuid
from typing import Final, NewType

from lochness.errors import ValidationError

GuestID = NewType("GuestID", str)
HypervisorID = NewType("HypervisorID", str)

# Exactly the usual spellings. uuid.UUID alone is laxer: it drops every dash and brace wherever they stand.
_SPELLINGS: Final = re.compile(
    r"""(?:urn:uuid:)? (?:
        \{ [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12} \}
      |    [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}
      |    [0-9a-f]{32}
    )""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
#: RFC 4122: of 128 bits four tell the version and two the variant.
_RANDOM_BITS: Final = ~(0xF << 76 | 0x3 << 62) & (1 << 128) - 1
_VERSION_4: Final = 0x4 << 76 | 0x2 << 62
_DRAWN_AT_ONCE: Final = 256
_drawn: Final[list[bytes]] = []
os.register_at_fork(after_in_child=_drawn.clear)  # parent and child would give the same ids
_NORMAL: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def parse_id(text: str, *, field: str = "id") -> str:
    """`text` in the lower-case dashed form.

    Accepts upper case, a `urn:uuid:` prefix, braces, 32 hexadecimal digits without dashes, and space around it. Raises
    ValidationError naming `field` for anything else.
    """
    if _NORMAL.fullmatch(text):
        return text
    if not is_id(text):
        raise ValidationError(f"{field} must be a UUID, got {text!r}", field=field)
    return str(uuid.UUID(text.strip().lower().removeprefix("urn:uuid:")))


def is_normal_id(text: str) -> bool:
    """Whether `text` is an ID in its one spelling."""
    return _NORMAL.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Whether `parse_id` accepts `text`."""
    return _SPELLINGS.fullmatch(text.strip()) is not None


def new_id() -> str:
    """A fresh random ID: a UUID of version 4.

    Random bytes are drawn for many at a time: each drawing lets go of the interpreter's lock, and a thread among others
    that want it waits to get it back.
    """
    try:
        drawn = _drawn.pop()
    except IndexError:
        fresh = os.urandom(16 * _DRAWN_AT_ONCE)
        _drawn.extend(fresh[start : start + 16] for start in range(16, len(fresh), 16))
        drawn = fresh[:16]
    bits = (int.from_bytes(drawn, "big") & _RANDOM_BITS) | _VERSION_4
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
