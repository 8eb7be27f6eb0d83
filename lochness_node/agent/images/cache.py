"""Which images are on this host, and how does one get there or away?

1. image_dir/ID/ appears whole and verified, by one rename: disk.qcow2 or disk.raw, kernel, initrd, image.json.
2. An image that a guest's disk stands on, or that a create is just using, is not deleted.
3. What a fetch that failed or was cut short has written is removed, but for the part of a download that the next fetch
   can go on with: it stays PART_KEPT_S, or until the image is deleted.

Not guaranteed: that an image still has its checksum later; that nobody else writes to image_dir.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from lochness.clock import Clock
from lochness.errors import (
    ConflictError,
    DeadlineError,
    LochnessError,
    NotFoundError,
    UnavailableError,
    ValidationError,
)
from lochness.identity import is_id
from lochness_node.agent.durable import publish_directory, replace_file
from lochness_node.agent.images.decide import CachedImage, Manifest, cached_image, decide_fetch, decide_format
from lochness_node.agent.images.download import STEP_BYTES, DiskFullError, Download, FetchLimits, Progress, Wanted
from lochness_node.agent.images.qcow2 import HEADER_BYTES, read_header
from lochness_node.agent.images.unpack import MAGIC_BYTES, compression_of, unpack
from lochness_node.agent.wire import Image, ImageRequest, ImageStatus

IMAGE_IN_USE: Final = "image_in_use"

_MANIFEST: Final = "image.json"
_PARTIAL: Final = ".partial-"
_PART: Final = f"{_PARTIAL}fetch"
_DOWNLOADS: Final = frozenset({"kernel", "initrd", "source"})
PART_KEPT_S: Final = 86400.0


class ImageCache:
    """The images below `directory`, made when missing. Safe to share between threads; one per directory.

    `guests_on` answers the ids of the guests whose disks stand on an image.
    """

    def __init__(
        self, directory: Path, clock: Clock, limits: FetchLimits, guests_on: Callable[[str], Collection[str]]
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._limits = limits
        self._guests_on = guests_on
        self._lock = threading.Lock()
        #: What is not published: images asked for, being fetched, or failed.
        self._unpublished: dict[str, Image] = {}
        self._holders: dict[str, int] = {}

    def prepare(self) -> None:
        """Make the directory and remove what an earlier agent left unfinished. Raises UnavailableError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for path in self._directory.iterdir():
                if not (_PARTIAL in path.name and is_id(path.name.partition(_PARTIAL)[0])):
                    continue
                age_s = self._clock.now().timestamp() - path.stat().st_mtime
                if not (path.name.endswith(_PART) and 0 <= age_s <= PART_KEPT_S):
                    shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            raise UnavailableError(f"cannot use the image directory {self._directory}: {error.strerror}") from error

    # ------------------------------------------------------------------------------------------------------- looking

    def images(self) -> list[Image]:
        """Every image that is here or on its way, by id."""
        try:
            ids = {path.name for path in self._directory.iterdir() if is_id(path.name)}
        except OSError as error:
            raise UnavailableError(f"cannot read the image directory {self._directory}: {error.strerror}") from error
        found = []
        for id in sorted(ids | set(self._unpublished)):
            with contextlib.suppress(NotFoundError):
                found.append(self.image(id))
        return found

    def image(self, id: str) -> Image:
        """Raises NotFoundError."""
        unpublished = self._unpublished.get(id)  # before the manifest: a fetch that ends goes from here to there
        if manifest := self._manifest(id):
            return Image(
                id=id,
                type=manifest.type,
                size=manifest.size,
                status="complete",
                sha256=manifest.sha256,
                format=manifest.format,
            )
        if unpublished:
            return unpublished
        raise NotFoundError("image", id)

    @contextmanager
    def held(self, ids: Collection[str]) -> Iterator[dict[str, CachedImage]]:
        """These images by id, safe from deletion for the `with` block. Raises NotFoundError when one is not here."""
        with self._lock:
            images = {id: self._cached(id) for id in ids}
            for id in images:
                self._holders[id] = self._holders.get(id, 0) + 1
        try:
            yield images
        finally:
            with self._lock:
                for id in images:
                    self._holders[id] -= 1

    # ------------------------------------------------------------------------------------------------------ changing

    def expected(self, request: ImageRequest) -> Image:
        """The image of a fetch that was just queued: as it is, else pending until the fetch begins."""
        with self._lock:
            shown = self._unpublished.get(request.id)
            if self._manifest(request.id) is None and (shown is None or shown.status == "error"):
                self._unpublished[request.id] = Image(id=request.id, type=request.type, format=request.format)
        return self.image(request.id)

    def fetch(self, request: ImageRequest, progress: Progress) -> str:
        """Bring the image here, and say how. Nothing is done when it is here already.

        Raises ValidationError (a source that is not allowed, a wrong checksum, a format that is not what was said),
        ConflictError (other files are here under that id), UnavailableError, DeadlineError.
        """
        self._show(request, "downloading")
        try:
            message = self._fetch(request, progress)
        except LochnessError as error:
            self._show(request, "error", error.message)
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                full = DiskFullError(f"the disk of {self._directory} is full, image {request.id} was not kept")
                self._show(request, "error", full.message)
                raise full from error
            text = f"cannot store image {request.id} in {self._directory}: {error.strerror}"
            self._show(request, "error", text)
            raise UnavailableError(text) from error
        with self._lock:
            self._unpublished.pop(request.id, None)
        return message

    def delete(self, id: str) -> Image:
        """Remove an image and answer what it was. Raises NotFoundError, ConflictError (reason "image_in_use")."""
        with self._lock:
            image = self.image(id)
            if image.status in ("pending", "downloading"):
                raise ConflictError(f"image {id} is being fetched", reason=IMAGE_IN_USE)
            if self._holders.get(id):
                raise ConflictError(f"image {id} is in use by a create", reason=IMAGE_IN_USE)
            if guests := sorted(self._guests_on(id)):
                raise ConflictError(f"image {id} is in use by the guests {', '.join(guests)}", reason=IMAGE_IN_USE)
            self._unpublished.pop(id, None)
            shutil.rmtree(self._part(id), ignore_errors=True)
            if image.status == "complete":
                self._remove(id)
        return image

    # ------------------------------------------------------------------------------------------------------- details

    def _fetch(self, request: ImageRequest, progress: Progress) -> str:
        manifest = self._manifest(request.id)
        match decide_fetch(manifest, request):
            case "keep":
                return f"image {request.id} is here already"
            case "relabel":
                assert manifest is not None  # decide_fetch
                self._write_manifest(self._path(request.id), msgspec.structs.replace(manifest, cmdline=request.cmdline))
                return f"image {request.id} is here already, its command line was changed"
        partial = self._part(request.id)
        try:
            partial.mkdir(mode=0o755, exist_ok=True)  # QEMU reads it as another user
            for path in partial.iterdir():
                if path.name not in _DOWNLOADS:
                    path.unlink()
            manifest = self._fill(partial, request, progress)
            self._write_manifest(partial, manifest)
            publish_directory(partial, self._path(request.id))
        except BaseException as error:
            can_go_on = isinstance(error, (UnavailableError, DeadlineError)) and not isinstance(error, DiskFullError)
            if not (can_go_on and request.sha256):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        return f"fetched {manifest.size} bytes, sha256 {manifest.sha256}"

    def _fill(self, partial: Path, request: ImageRequest, progress: Progress) -> Manifest:
        download = Download(self._limits, self._clock, progress)
        sums = {"kernel": "", "initrd": ""}
        for name in sums:
            if url := getattr(request, name):
                wanted = Wanted(name, url, getattr(request, f"{name}_sha256"))
                sums[name] = download.bring(wanted, partial / name).sha256
        came = download.bring(Wanted("source", request.source, request.sha256, request.size), partial / "source")
        disk, size = self._unpacked(partial, came.size, download, progress)
        with disk.open("rb") as file:
            header = read_header(file.read(HEADER_BYTES))
        format, virtual_bytes = decide_format(header, request.format, size)
        disk.rename(partial / f"disk.{format}")
        return Manifest(
            id=request.id, type=request.type, source=request.source, sha256=came.sha256, format=format, size=size,
            virtual_size=virtual_bytes, kernel=request.kernel, kernel_sha256=sums["kernel"],
            initrd=request.initrd, initrd_sha256=sums["initrd"], cmdline=request.cmdline,
        )  # fmt: skip

    def _unpacked(self, partial: Path, size: int, download: Download, progress: Progress) -> tuple[Path, int]:
        """The disk's own file in `partial`, and its size in bytes."""
        source = partial / "source"
        with source.open("rb") as file:
            compression = compression_of(file.read(MAGIC_BYTES))
        if compression is None:
            return source, size
        disk, looked = partial / "disk", 0

        def check(size: int) -> None:
            nonlocal looked
            if size > self._limits.bytes_max:
                limit = f"{self._limits.bytes_max} bytes (image_bytes_max)"
                raise ValidationError(f"the {compression} image holds more than the limit of {limit}", field="source")
            if size - looked >= STEP_BYTES:
                looked = size
                download.check_time("unpacking the image")
                self._limits.require_room(partial, 0)
                progress(f"unpacking: {size >> 20} MB")

        size = unpack(source, compression, disk, check)
        disk.chmod(0o644)
        with disk.open("rb") as file:
            os.fsync(file.fileno())
        source.unlink()
        return disk, size

    def _show(self, request: ImageRequest, status: ImageStatus, message: str = "") -> None:
        with self._lock:
            self._unpublished[request.id] = Image(
                id=request.id, type=request.type, format=request.format, status=status, message=message
            )

    def _path(self, id: str) -> Path:
        return self._directory / id

    def _part(self, id: str) -> Path:
        return self._directory / f"{id}{_PART}"

    def _manifest(self, id: str) -> Manifest | None:
        try:
            return msgspec.json.decode((self._path(id) / _MANIFEST).read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise UnavailableError(f"the record of image {id} in {self._path(id)} cannot be read: {error}") from error

    def _write_manifest(self, directory: Path, manifest: Manifest) -> None:
        replace_file(directory / _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")

    def _cached(self, id: str) -> CachedImage:
        manifest = self._manifest(id)
        if manifest is None:
            raise NotFoundError("image", id)
        return cached_image(manifest, self._path(id))

    def _remove(self, id: str) -> None:
        """Out of sight by one rename, then for good: half an image is never taken for a whole one."""
        doomed = self._directory / f"{id}{_PARTIAL}deleted"
        try:
            self._path(id).rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise UnavailableError(f"cannot remove image {id}: {error.strerror}") from error
