"""An image: what a guest's first disk starts from, and how it boots."""

from __future__ import annotations

import re
from typing import Final, Literal

from lochness.model.record import Metadata, Quantity, Record, normalized_id, require, require_id

ImageFormat = Literal["qcow2", "raw"]

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SOURCE: Final = re.compile(r"(?:https?|file)://[^\s]+")


class ImageRecord(Record):
    """images/ID/metadata.

    `source` is the URL (http, https, file) of the disk image, which may be compressed by gzip or zstd; `sha256` is that
    file's lower-case hexadecimal checksum ("": not checked), `size` its bytes (0: not checked), `format` that of the
    disk in it, qcow2 or raw. With `kernel` (a URL, its checksum beside it) the
    guest boots that kernel directly, with `initrd` and the command line `cmdline`; without it the disk's boot loader
    runs.
    """

    id: str = ""
    metadata: Metadata = {}
    type: str = "kvm"
    source: str = ""
    sha256: str = ""
    format: ImageFormat = "qcow2"
    size: Quantity = 0
    kernel: str = ""
    kernel_sha256: str = ""
    initrd: str = ""
    initrd_sha256: str = ""
    cmdline: str = ""

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")
        self.sha256 = self.sha256.lower()
        self.kernel_sha256 = self.kernel_sha256.lower()
        self.initrd_sha256 = self.initrd_sha256.lower()

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        require(bool(self.source), "source is required", "source")
        for field in ("source", "kernel", "initrd"):
            url = getattr(self, field)
            require(
                not url or _SOURCE.fullmatch(url) is not None,
                f"{field} must be an http, https or file URL, got {url!r}",
                field,
            )
        for field in ("sha256", "kernel_sha256", "initrd_sha256"):
            checksum = getattr(self, field)
            require(
                not checksum or _SHA256.fullmatch(checksum) is not None,
                f"{field} must be 64 hexadecimal digits, got {checksum!r}",
                field,
            )
        require(not self.initrd or bool(self.kernel), "initrd needs kernel", "initrd")
        require(not self.cmdline or bool(self.kernel), "cmdline needs kernel", "cmdline")
