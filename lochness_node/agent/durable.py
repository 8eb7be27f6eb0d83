"""How is a file replaced, or a directory published, so that a crash never leaves half of one?

1. What is at the path is the old or the new one, whole, also after a power cut.
2. When a function here returns, the new one is on the disk.
3. What a crash leaves of a file, its name and ".partial", is replaced by the next who writes that file.

Not guaranteed: that two who write one file at the same time do not disturb each other; a lock is the caller's.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

PARTIAL_SUFFIX: Final = ".partial"


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` at `path`, on the disk when this returns. Raises OSError; the old file then stays."""
    temporary = path.with_name(f"{path.name}{PARTIAL_SUFFIX}")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def publish_directory(finished: Path, path: Path) -> None:
    """Rename the directory `finished`, whose files are on the disk already, to `path`.

    Raises OSError, also when `path` is a directory with something in it.
    """
    sync_directory(finished)
    finished.rename(path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Bring what is in the file to the disk. Raises OSError."""
    _sync(path, os.O_RDONLY | os.O_CLOEXEC)


def sync_directory(directory: Path) -> None:
    """Bring the names in `directory` to the disk. Raises OSError."""
    _sync(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
