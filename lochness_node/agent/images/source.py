"""Where do the bytes of an image come from?

1. A file:// source is a regular file below one of the allowed directories after all symbolic links are resolved.
2. HTTP has a limit for connecting and for each silence; the caller bounds size and duration by the pieces it takes.
3. A redirect leads to http or https only.
4. From a byte on means from that byte of the same file: by its validator, where the server told one.

Not guaranteed: that what arrives is what was meant; that is what checksums are for.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx

from lochness.errors import UnavailableError, ValidationError

PIECE_BYTES: Final = 1 << 20
_CONNECT_TIMEOUT_S: Final = 10.0
_SILENCE_TIMEOUT_S: Final = 30.0
_REDIRECTS_MAX: Final = 5

#: A strong entity tag (RFC 9110): the same tag is the same bytes.
_STRONG_TAG: Final = re.compile(r'"[^"]*"')
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class RangeLostError(UnavailableError):
    """The file is shorter than what we have of it: begin anew."""


@dataclass(frozen=True, slots=True)
class Opened:
    """`pieces` begin at byte `start` of a file of `length` bytes, None where that is not known.

    `validator` names this very content to the server, "" when it told none.
    """

    pieces: Iterator[bytes]
    start: int
    length: int | None
    validator: str = ""


@contextmanager
def open_source(
    url: str, allowed: Sequence[Path], *, field: str, start: int = 0, validator: str = ""
) -> Iterator[Opened]:
    """What is behind `url`, from byte `start` on where the other side can, else from the beginning.

    Raises ValidationError naming `field` for a URL that is not allowed, UnavailableError when the other side fails.
    """
    if urlsplit(url).scheme == "file":
        with _open_file(allowed_path(url, allowed, field=field)) as opened:
            yield opened
    else:
        with _open_http(url, start, validator) as opened:
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
def _open_file(path: Path) -> Iterator[Opened]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        yield Opened(iter(lambda: file.read(PIECE_BYTES), b""), 0, os.fstat(file.fileno()).st_size)


@contextmanager
def _open_http(url: str, start: int, validator: str) -> Iterator[Opened]:
    timeout = httpx.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    # As it is stored: a compressed transfer could grow without bound, and its length could not be checked.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", **({"If-Range": validator} if validator else {})}
    try:
        with (
            httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=_REDIRECTS_MAX) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            yield _opened(url, response, start)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"cannot fetch {url}: {str(error) or type(error).__name__}") from error


def _opened(url: str, response: httpx.Response, start: int) -> Opened:
    # Pieces as they come: gathered into larger ones, the last would be lost when the transfer breaks off.
    validator = response.headers.get("ETag", "")
    if not _STRONG_TAG.fullmatch(validator):
        validator = ""
    if response.status_code == httpx.codes.PARTIAL_CONTENT and start:
        range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if range is None or int(range[1]) != start:
            raise UnavailableError(f"{url} answered another range than the bytes from {start} on")
        length = int(range[2]) if range[2] != "*" else None
        return Opened(response.iter_raw(), start, length, validator)
    if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        raise RangeLostError(f"{url} has no byte {start}")
    if response.status_code != httpx.codes.OK:
        raise UnavailableError(f"{url} answered {response.status_code} {response.reason_phrase}")
    told = response.headers.get("Content-Length", "")
    return Opened(response.iter_raw(), 0, int(told) if told.isdigit() else None, validator)
