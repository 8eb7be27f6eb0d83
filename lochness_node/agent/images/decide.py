"""What does a request for an image need, given what is here already? Pure.

1. An image never changes under its id: what is here is kept, or the request is refused with what differs.
2. A disk image that refers to other files of the host is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from lochness.errors import ConflictError, ValidationError
from lochness_node.agent.images.qcow2 import Qcow2Header
from lochness_node.agent.wire import ImageRequest
from lochness_node.driver.protocol import DirectBoot

IMAGE_DIFFERS: Final = "image_differs"

ImageFormat = Literal["qcow2", "raw"]


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """image.json: what was fetched, from where. Checksums are those of the files that are here; sizes in bytes.

    `virtual_size` is the size of the disk a guest sees. `kernel` and `initrd` are the URLs, "" for none.
    """

    id: str
    type: str = "kvm"
    source: str
    sha256: str
    format: ImageFormat
    size: int
    virtual_size: int
    kernel: str = ""
    kernel_sha256: str = ""
    initrd: str = ""
    initrd_sha256: str = ""
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image that is here.

    `virtual_bytes` is the size of its disk, `boot` its own kernel, None to boot from the disk.
    """

    id: str
    disk: Path
    format: ImageFormat
    virtual_bytes: int
    boot: DirectBoot | None


def cached_image(manifest: Manifest, directory: Path) -> CachedImage:
    """The image whose files lie in `directory`."""
    boot = None
    if manifest.kernel:
        initrd = str(directory / "initrd") if manifest.initrd else ""
        boot = DirectBoot(kernel=str(directory / "kernel"), initrd=initrd, cmdline=manifest.cmdline)
    disk = directory / f"disk.{manifest.format}"
    return CachedImage(manifest.id, disk, manifest.format, manifest.virtual_size, boot)


def decide_fetch(manifest: Manifest | None, request: ImageRequest) -> Literal["fetch", "keep", "relabel"]:
    """ "fetch" the files, "keep" what is here, or only "relabel" it with the request's command line.

    Raises ConflictError (reason "image_differs") when other files are here under that id.
    """
    if manifest is None:
        return "fetch"
    for name in ("source", "kernel", "initrd"):
        checksum = "sha256" if name == "source" else f"{name}_sha256"
        wanted, here = getattr(request, checksum), getattr(manifest, checksum)
        if wanted and wanted != here:
            raise _differs(request.id, checksum, here, wanted)
        if not wanted and getattr(request, name) != getattr(manifest, name):
            raise _differs(request.id, name, getattr(manifest, name), getattr(request, name))
    if request.format and request.format != manifest.format:
        raise _differs(request.id, "format", manifest.format, request.format)
    return "keep" if request.cmdline == manifest.cmdline else "relabel"


def _differs(id: str, name: str, here: str, wanted: str) -> ConflictError:
    return ConflictError(
        f"image {id} is here with {name} {here!r}, asked for was {wanted!r}: an image's files do not change, make "
        "another image for others",
        reason=IMAGE_DIFFERS,
    )


def decide_format(
    header: Qcow2Header | None, declared: Literal["", "qcow2", "raw"], file_bytes: int
) -> tuple[ImageFormat, int]:
    """The format of a fetched disk image and the virtual size of its disk in bytes. Raises ValidationError."""
    if file_bytes == 0:
        raise ValidationError("the image is empty", field="source")
    if header is None:
        if declared == "qcow2":
            raise ValidationError("the image is declared qcow2 but is none", field="format")
        return "raw", file_bytes
    if declared == "raw":
        return "raw", file_bytes
    if header.has_backing_file or header.has_data_file:
        what = "a backing file" if header.has_backing_file else "an external data file"
        raise ValidationError(f"the image refers to {what} of the host; flatten it (qemu-img convert)", field="source")
    return "qcow2", header.virtual_bytes
