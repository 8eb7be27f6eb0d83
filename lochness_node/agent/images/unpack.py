"""How does a compressed disk image become a disk?

1. gzip and zstd are known by their first bytes; what begins otherwise is no archive. A boot disk begins with neither.
2. What comes out is bounded by the caller, piece by piece: a small file can hold a large one.
3. Blocks of zeros become holes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Literal

import zstandard

from lochness.errors import ValidationError

PIECE_BYTES: Final = 1 << 20
#: What the zstd command allows without being told otherwise; more would be memory for whoever made the file to choose.
_ZSTD_WINDOW_BYTES: Final = 1 << 27

Compression = Literal["gzip", "zstd"]
_MAGIC: Final[dict[bytes, Compression]] = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
MAGIC_BYTES: Final = 4


def compression_of(head: bytes) -> Compression | None:
    """How a file with these first MAGIC_BYTES is compressed."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def unpack(packed: Path, compression: Compression, disk: Path, check: Callable[[int], None]) -> int:
    """Write what is in `packed` to the new file `disk`; its size in bytes. `check(bytes so far)` may raise.

    Raises ValidationError for a damaged archive, OSError.
    """
    size = 0
    with packed.open("rb") as source, _opened(source, compression) as content, disk.open("xb") as file:
        try:
            while piece := content.read(PIECE_BYTES):
                size += len(piece)
                check(size)
                if piece.count(0) == len(piece):
                    file.seek(size)
                else:
                    file.write(piece)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise ValidationError(f"the image is damaged {compression}: {error}", field="source") from error
        file.truncate(size)
    return size


def _opened(source: IO[bytes], compression: Compression) -> IO[bytes]:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=source, mode="rb")  # type: ignore[return-value]  # it is one by all that is used
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    stream: IO[bytes] = decompressor.stream_reader(source, read_across_frames=True)
    return stream
