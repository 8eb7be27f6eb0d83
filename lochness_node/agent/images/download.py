"""How does one file of an image come here, whole, checked, and without beginning anew at each hitch?

1. At most `bytes_max` bytes are taken, and the file system keeps `reserve_bytes` free.
2. A transfer that broke goes on where it was, as often as bytes came since: by the server's own validator, or when a
   checksum guards the whole.
3. What an earlier fetch left is taken up only under a checksum; when that fails, once more from the beginning.

Not guaranteed: without a checksum, that the file is what was meant.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lochness.clock import Clock
from lochness.errors import DeadlineError, UnavailableError, ValidationError
from lochness_node.agent.images.source import PIECE_BYTES, RangeLostError, open_source

RESUMES_MAX: Final = 100
#: Progress is told, and the room looked at, at every such step.
STEP_BYTES: Final = 64 << 20

Progress = Callable[[str], None]


class DiskFullError(UnavailableError):
    """There is no room for it. Nothing of it is left; make room and ask again."""

    reason = "disk_full"


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """`allowed` are the directories of file:// sources; each file has at most `bytes_max`, all take `timeout_s`.

    `reserve_bytes` of the file system stay free.
    """

    allowed: Sequence[Path]
    bytes_max: int
    timeout_s: float
    reserve_bytes: int = 0

    def require_room(self, directory: Path, more_bytes: int) -> None:
        """Raise DiskFullError when `more_bytes` more would leave less than the reserve."""
        status = os.statvfs(directory)
        free = status.f_bavail * status.f_frsize
        if more_bytes + self.reserve_bytes > free:
            raise DiskFullError(
                f"no room in {directory}: {free} bytes are free, {more_bytes} more are needed and "
                f"{self.reserve_bytes} stay free (image_reserve_bytes)"
            )


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: the `field` of the request that names `url`, its `sha256` and `size`, "" and 0 when not known."""

    field: str
    url: str
    sha256: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What came: the SHA-256 and the size in bytes."""

    sha256: str
    size: int


class Download:
    """Brings files below one deadline."""

    def __init__(self, limits: FetchLimits, clock: Clock, progress: Progress) -> None:
        self._limits = limits
        self._clock = clock
        self._progress = progress
        self._deadline_s = clock.monotonic_s() + limits.timeout_s

    def bring(self, wanted: Wanted, path: Path) -> Downloaded:
        """Write the file to `path`, on the disk when this returns; a part of it may be there.

        Raises ValidationError (not allowed, over the limit, not what was wanted), DiskFullError, UnavailableError (the
        part stays), DeadlineError (so too), OSError.
        """
        if not wanted.sha256:
            path.unlink(missing_ok=True)
        was_there = path.exists()
        try:
            return self._checked(wanted, self._transferred(wanted, path), path)
        except (ValidationError, RangeLostError):
            path.unlink(missing_ok=True)
            if not was_there:
                raise
        return self._checked(wanted, self._transferred(wanted, path), path)

    def check_time(self, what: str) -> None:
        """Raise DeadlineError when it has passed."""
        if self._clock.monotonic_s() > self._deadline_s:
            raise DeadlineError(f"{what} took over {self._limits.timeout_s:g} s (image_fetch_timeout_s)")

    def _transferred(self, wanted: Wanted, path: Path) -> Downloaded:
        validator = ""
        for _ in range(RESUMES_MAX):
            begun = _size(path)
            try:
                return self._transfer(wanted, path, validator)
            except _BrokenOffError as error:
                came = _size(path)
                if came <= begun or not (error.validator or wanted.sha256):
                    raise
                validator = error.validator
                self._progress(f"{wanted.field}: broken off after {came >> 20} MB, going on")
        raise UnavailableError(f"{wanted.url} broke off {RESUMES_MAX} times")

    def _transfer(self, wanted: Wanted, path: Path, validator: str) -> Downloaded:
        have = _size(path)
        told = ""
        try:
            with (
                open_source(
                    wanted.url, self._limits.allowed, field=wanted.field, start=have, validator=validator
                ) as opened,
                path.open("r+b" if have else "w+b") as file,
            ):
                told = opened.validator
                digest = hashlib.sha256()
                for piece in iter(lambda: file.read(min(PIECE_BYTES, opened.start - file.tell())), b""):
                    digest.update(piece)
                file.truncate(opened.start)
                size = looked = opened.start
                self._limits.require_room(path.parent, max(0, (opened.length or 0) - size))
                for piece in opened.pieces:
                    size += len(piece)
                    self._check_size(wanted, size)
                    self.check_time(f"fetching {wanted.url}, of which {size} bytes have come,")
                    digest.update(piece)
                    file.write(piece)
                    if size - looked >= STEP_BYTES:
                        looked = size
                        self._limits.require_room(path.parent, 0)
                        of = f" of {opened.length >> 20}" if opened.length else ""
                        self._progress(f"{wanted.field}: {size >> 20}{of} MB")
                file.flush()
                os.fsync(file.fileno())
        except (DiskFullError, RangeLostError):
            raise
        except UnavailableError as error:
            raise _BrokenOffError(error.message, told) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(f"the disk of {path.parent} is full: {error.strerror}") from error
            raise
        if opened.length is not None and size < opened.length:
            raise _BrokenOffError(f"{wanted.url} ended after {size} of {opened.length} bytes", told)
        return Downloaded(digest.hexdigest(), size)

    def _check_size(self, wanted: Wanted, size: int) -> None:
        if size > self._limits.bytes_max:
            raise ValidationError(
                f"{wanted.field} {wanted.url!r} is over the limit of {self._limits.bytes_max} bytes (image_bytes_max)",
                field=wanted.field,
            )

    def _checked(self, wanted: Wanted, came: Downloaded, path: Path) -> Downloaded:
        if wanted.size and came.size != wanted.size:
            raise ValidationError(
                f"{wanted.field} {wanted.url!r} has {came.size} bytes, wanted {wanted.size}", field="size"
            )
        if wanted.sha256 and came.sha256 != wanted.sha256:
            text = f"{wanted.field} {wanted.url!r} has the sha256 {came.sha256}, wanted {wanted.sha256}"
            raise ValidationError(text, field=wanted.field)
        path.chmod(0o644)
        return came


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _BrokenOffError(UnavailableError):
    """The transfer ended early; `validator` names what came so far."""

    def __init__(self, message: str, validator: str) -> None:
        super().__init__(message)
        self.validator = validator
