"""What a request for an image needs, and what is read from the head of one."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from lochness.errors import ConflictError, ValidationError
from lochness.identity import new_id
from lochness_node.agent.images.decide import Manifest, decide_fetch, decide_format
from lochness_node.agent.images.qcow2 import HEADER_BYTES, Qcow2Header, read_header
from lochness_node.agent.wire import ImageRequest

ID, SUM = new_id(), "a" * 64
HERE = Manifest(
    id=ID, source="http://a/i", sha256=SUM, format="qcow2", size=10, virtual_size=100, kernel="http://a/k",
    kernel_sha256="b" * 64, cmdline="quiet",
)  # fmt: skip


def request(**changes: Any) -> ImageRequest:
    return ImageRequest(**{"id": ID, "source": "http://a/i", "kernel": "http://a/k", "cmdline": "quiet", **changes})


@pytest.mark.parametrize(
    ("changes", "decided"),
    [
        ({}, "keep"),
        ({"sha256": SUM}, "keep"),
        ({"sha256": SUM, "source": "http://mirror/i"}, "keep"),
        ({"kernel_sha256": "b" * 64, "kernel": "http://mirror/k"}, "keep"),
        ({"format": "qcow2"}, "keep"),
        ({"cmdline": "debug"}, "relabel"),
    ],
)
def test_an_image_that_is_here_is_kept(changes: dict[str, str], decided: str) -> None:
    assert decide_fetch(HERE, request(**changes)) == decided


def test_an_image_that_is_not_here_is_fetched() -> None:
    assert decide_fetch(None, request()) == "fetch"


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "c" * 64},
        {"source": "http://mirror/i"},
        {"kernel": ""},
        {"kernel": "http://mirror/k"},
        {"kernel_sha256": "c" * 64},
        {"initrd": "http://a/i"},
        {"format": "raw"},
    ],
)
def test_other_files_under_the_same_id_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ConflictError) as refused:
        decide_fetch(HERE, request(**changes))
    assert refused.value.reason == "image_differs"


def head(version: int = 3, backing_at: int = 0, features: int = 0) -> bytes:
    fixed = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing_at, 0, 16, 5 << 20)
    return fixed.ljust(72, b"\0") + features.to_bytes(8, "big") + bytes(HEADER_BYTES)


def test_headers_are_read() -> None:
    assert read_header(head()) == Qcow2Header(5 << 20, has_backing_file=False, has_data_file=False)
    assert read_header(head(backing_at=512)) == Qcow2Header(5 << 20, has_backing_file=True, has_data_file=False)
    assert read_header(head(features=4)) == Qcow2Header(5 << 20, has_backing_file=False, has_data_file=True)
    # Version 2 has no features; what stands there is something else.
    assert read_header(head(version=2, features=4)) == Qcow2Header(5 << 20, has_backing_file=False, has_data_file=False)
    assert read_header(b"\x7fELF") is None
    assert read_header(b"") is None


@pytest.mark.parametrize("damaged", [head()[:50], head(version=1), head(version=9)])
def test_a_damaged_header_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValidationError):
        read_header(damaged)


def test_the_format_is_what_the_file_says_unless_raw_was_declared() -> None:
    header = read_header(head())
    assert decide_format(header, "", 7) == ("qcow2", 5 << 20)
    assert decide_format(header, "raw", 7) == ("raw", 7)
    assert decide_format(None, "", 7) == ("raw", 7)


@pytest.mark.parametrize(
    ("header", "declared", "file_bytes", "word"),
    [
        (None, "qcow2", 7, "is none"),
        (None, "", 0, "empty"),
        (Qcow2Header(1, has_backing_file=True, has_data_file=False), "qcow2", 7, "backing file"),
        (Qcow2Header(1, has_backing_file=False, has_data_file=True), "", 7, "data file"),
    ],
)
def test_an_image_that_cannot_be_trusted_is_refused(
    header: Qcow2Header | None, declared: Any, file_bytes: int, word: str
) -> None:
    with pytest.raises(ValidationError, match=word):
        decide_format(header, declared, file_bytes)
