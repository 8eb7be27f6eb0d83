"""What does the head of a disk image say about itself? Pure.

A qcow2 file can name further files of the host (a backing file, a data file) and QEMU would open them. An image that
came from outside must not, so this is looked at before QEMU is ever given the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from lochness.errors import ValidationError

#: As many bytes of a file as `read_header` wants to see.
HEADER_BYTES: Final = 104

_MAGIC: Final = b"QFI\xfb"
_VERSIONS: Final = (2, 3)
# Magic, version, backing file's offset and length, cluster bits, virtual size (qemu docs/interop/qcow2.txt).
_FIXED: Final = struct.Struct(">4sIQIIQ")
_FEATURES_AT: Final = 72
_EXTERNAL_DATA_FILE: Final = 1 << 2


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """`virtual_bytes` is the size of the disk that a guest sees."""

    virtual_bytes: int
    has_backing_file: bool
    has_data_file: bool


def read_header(head: bytes) -> Qcow2Header | None:
    """The header in a file's first HEADER_BYTES, None when it is no qcow2. Raises ValidationError for a damaged one."""
    if not head.startswith(_MAGIC):
        return None
    if len(head) < HEADER_BYTES:
        raise ValidationError(f"the image is a truncated qcow2: {len(head)} bytes", field="source")
    _, version, backing_at, _, _, virtual_bytes = _FIXED.unpack_from(head)
    if version not in _VERSIONS:
        raise ValidationError(f"the image is qcow2 version {version}, known are 2 and 3", field="source")
    features = int.from_bytes(head[_FEATURES_AT : _FEATURES_AT + 8], "big") if version > _VERSIONS[0] else 0
    return Qcow2Header(virtual_bytes, backing_at != 0, bool(features & _EXTERNAL_DATA_FILE))
