"""Who works on a guest's domain now? One process and thread at a time, agent and guestwatch alike.

Invariants:
1. At most one holder per directory and guest, among processes and among the threads of one; a holder that dies,
   however it dies, lets go (the kernel drops its flock).
2. A lock's file exists only while somebody holds or wants the lock: the holder removes it before letting go, and who
   gets the lock of a file that was removed meanwhile starts over with a new one. So there are at most as many files as
   guests in work; what a killed holder left behind is taken over by the next, and /run is empty after a boot.

Not guaranteed: order among those who wait. The directory must be local (NFS emulates flock).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lochness.errors import DeadlineError, UnavailableError

_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.05
#: How often in a row the file may vanish between opening and locking it before that counts as held.
_REMOVED_FILES_MAX: Final = 10


@contextmanager
def guest_lock(directory: Path, guest_id: str, *, timeout_s: float) -> Iterator[None]:
    """Hold the guest's lock for the `with` block; `directory` is made when it is missing.

    `timeout_s` 0 tries once. Raises DeadlineError when it is still held by another after `timeout_s`, UnavailableError
    when the lock file cannot be made or opened.
    """
    path = directory / f"{guest_id}.lock"
    deadline_s = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while (descriptor := _try_lock(path)) is None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineError(f"guest {guest_id} is still being worked on after {timeout_s:g} s (lock {path})")
        # flock has no timeout of its own, and a signal would need the main thread: look again, ever less often.
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, None when another holds it."""
    for _ in range(_REMOVED_FILES_MAX):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnavailableError(f"cannot open the lock file {path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_current(descriptor, path):
            return descriptor
        os.close(descriptor)
    return None


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the file that was locked: its last holder removes it before letting go."""
    locked = os.fstat(descriptor)
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (locked.st_dev, locked.st_ino) == (found.st_dev, found.st_ino)
