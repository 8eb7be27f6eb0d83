"""Where do the bytes of an image come from?

1. A file:// source is a regular file below one of the allowed directories after all symbolic links are resolved.
2. HTTP has a limit for connecting and for each silence; the caller bounds size and duration by the pieces it takes.
3. A redirect leads to http or https only.

Not guaranteed: that what arrives is what was meant; that is what checksums are for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx

from lochness.errors import UnavailableError, ValidationError

PIECE_BYTES: Final = 1 << 20
_CONNECT_TIMEOUT_S: Final = 10.0
_SILENCE_TIMEOUT_S: Final = 30.0
_REDIRECTS_MAX: Final = 5

#: Pieces of a file in order.
Pieces = Iterator[bytes]


@contextmanager
def open_source(url: str, allowed: Sequence[Path], *, field: str) -> Iterator[tuple[Pieces, int | None]]:
    """The pieces behind `url` and their sum in bytes, where it is known before.

    Raises ValidationError naming `field` for a URL that is not allowed, UnavailableError when the other side fails.
    """
    if urlsplit(url).scheme == "file":
        with _open_file(allowed_path(url, allowed, field=field)) as opened:
            yield opened
    else:
        with _open_http(url) as opened:
            yield opened


def allowed_path(url: str, allowed: Sequence[Path], *, field: str) -> Path:
    """The file that a file:// URL names, links resolved. Raises ValidationError when rule 1 forbids it."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ValidationError(f"{field} must be a file on this host like file:///PATH, got {url!r}", field=field)
    try:
        path = Path(unquote(parts.path, errors="strict")).resolve(strict=True)
        is_allowed = any(path.is_relative_to(directory.resolve()) for directory in allowed)
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: NUL or no UTF-8; RuntimeError: a loop of links
        raise ValidationError(f"{field} {url!r} cannot be read on this host", field=field) from error
    if not is_allowed:
        below = ", ".join(map(str, allowed)) or "nowhere"
        raise ValidationError(f"{field} {url!r} is not allowed: files are taken from below {below}", field=field)
    if not is_regular:
        raise ValidationError(f"{field} {url!r} is not a regular file", field=field)
    return path


@contextmanager
def _open_file(path: Path) -> Iterator[tuple[Pieces, int | None]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        yield iter(lambda: file.read(PIECE_BYTES), b""), os.fstat(file.fileno()).st_size


@contextmanager
def _open_http(url: str) -> Iterator[tuple[Pieces, int | None]]:
    timeout = httpx.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    try:
        with (
            httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=_REDIRECTS_MAX) as client,
            # As it is stored: a compressed transfer could grow without bound, and its length could not be checked.
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise UnavailableError(f"{url} answered {response.status_code} {response.reason_phrase}")
            length = response.headers.get("Content-Length", "")
            yield response.iter_raw(PIECE_BYTES), int(length) if length.isdigit() else None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"cannot fetch {url}: {str(error) or type(error).__name__}") from error
