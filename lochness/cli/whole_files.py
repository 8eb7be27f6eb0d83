"""How is a whole file read and written?

1. Read up to a limit: a device that never ends (/dev/zero) must not take all memory.
2. Written whole or not at all, and from its first byte on for its owner only: it may hold secrets.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lochness.errors import ValidationError


def read_whole(file: Path, *, limit_bytes: int, field: str) -> bytes:
    """What `file` holds, "-" for standard input. Raises ValidationError; `field` is the option or argument."""
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(limit_bytes + 1)
    except OSError as error:
        raise ValidationError(f"cannot read {file}: {error.strerror}", field=field) from error
    if len(content) > limit_bytes:
        raise ValidationError(f"{file} holds more than {limit_bytes >> 20} MB", field=field)
    return content


def write_whole(file: Path, pieces: Iterable[bytes]) -> None:
    """Make `file` hold these bytes, with mode 0600. Raises OSError, and then it is as it was."""
    with tempfile.NamedTemporaryFile(dir=file.absolute().parent, prefix=f".{file.name}.", delete=False) as new:
        try:
            new.writelines(pieces)
            new.flush()
            os.fsync(new.fileno())
            os.replace(new.name, file)
        except BaseException:
            os.unlink(new.name)
            raise
