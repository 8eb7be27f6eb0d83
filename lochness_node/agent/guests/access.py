"""How does an agent that is not root keep its hands on the disks that libvirt gives to QEMU's user?

While a guest runs its disks belong to QEMU's user. root reads them anyhow; another agent gets an entry of its own in
the file's access list, which a change of the owner leaves alone.

Not guaranteed: that the file system has access lists. Where it has none, a running guest's snapshot is not downloaded;
everything else is asked of QEMU itself.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_READ_WRITE: Final = 6
_NO_ID: Final = 0xFFFFFFFF


def keep_access(path: Path, user_id: int) -> bool:
    """Let the user read and write the file whoever owns it, and nobody else; False where that cannot be said."""
    entries = (
        (_USER_OBJ, _READ_WRITE, _NO_ID),
        (_USER, _READ_WRITE, user_id),
        (_GROUP_OBJ, 0, _NO_ID),
        (_MASK, _READ_WRITE, _NO_ID),
        (_OTHER, 0, _NO_ID),
    )
    try:
        os.setxattr(
            path, "system.posix_acl_access", _VERSION.pack(2) + b"".join(_ENTRY.pack(*each) for each in entries)
        )
    except OSError:
        return False
    return True
