"""What has the guest written to its serial console?

1. The console begins anew with each start of the guest: what is read is of its last run, also after that has ended.
2. Of a long one the end is read, or what came after a place that was told before; never more than was asked for.

Not guaranteed: what libvirt's log daemon has rotated away (its max_size, 2 MB by default); that one who goes on from a
place notices a start after which the guest has already written more than that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lochness.errors import NotFoundError, UnavailableError
from lochness.identity import GuestID
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.plan import CONSOLE_FILE
from lochness_node.driver.protocol import FilePart, FileWindow

CONSOLE_BYTES: Final = 64 << 10
CONSOLE_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ConsolePart:
    """Some of a console, and the place behind it in bytes, from where to go on."""

    content: bytes
    end: int


def read_console(host: Host, guest_id: GuestID, *, since: int | None, limit_bytes: int) -> ConsolePart:
    """The last `limit_bytes`, or as many from the place `since` on (from the beginning when that is beyond the end).

    Raises NotFoundError, UnavailableError, DeadlineError, DriverError.
    """
    if host.records.remembered(guest_id) is None:
        raise NotFoundError("guest", guest_id)
    path = host.records.path(guest_id) / CONSOLE_FILE

    def window(size_bytes: int) -> tuple[int, int]:
        return console_window(size_bytes, since, limit_bytes)

    try:
        part = _read(path, window)
    except FileNotFoundError:  # it was never started, or not by what has a console
        part = FilePart(b"", 0)
    except PermissionError:  # it belongs to libvirt, and we are not root
        part = host.driver.read_file(guest_id, str(path), window)
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
    return ConsolePart(part.content, part.start + len(part.content))


def console_window(size_bytes: int, since: int | None, limit_bytes: int) -> tuple[int, int]:
    """Where to begin in a console of `size_bytes`, and how much to read. Pure."""
    first = max(0, size_bytes - limit_bytes) if since is None else since
    start = first if first <= size_bytes else 0
    return start, min(limit_bytes, size_bytes - start)


def _read(path: Path, window: FileWindow) -> FilePart:
    # Whatever lies there, nothing but a file of this directory is read, and nobody is waited for.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        start, length = window(os.fstat(file.fileno()).st_size)
        file.seek(start)
        return FilePart(file.read(length), start)
