"""Which images are on this host, and how does one get there or away?

1. image_dir/ID/ appears whole and verified, by one rename: disk.qcow2 or disk.raw, kernel, initrd, image.json.
2. An image that a guest's disk stands on, or that a create is just using, is not deleted.
3. What a fetch that failed or was cut short has written is removed, at the latest when the next agent starts.

Not guaranteed: that an image still has its checksum later; that nobody else writes to image_dir.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from lochness_node.agent.images.qcow2 import HEADER_BYTES, read_header
from lochness_node.agent.images.source import open_source
from lochness_node.agent.wire import Image, ImageRequest, ImageStatus

IMAGE_IN_USE: Final = "image_in_use"

_MANIFEST: Final = "image.json"
_PARTIAL: Final = ".partial-"
#: Progress is told at every such step.
_PROGRESS_BYTES: Final = 64 << 20

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """`allowed` are the directories of file:// sources; each file has at most `bytes_max`, all take `timeout_s`."""

    allowed: Sequence[Path]
    bytes_max: int
    timeout_s: float


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
                if _PARTIAL in path.name and is_id(path.name.partition(_PARTIAL)[0]):
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
        if manifest := self._manifest(id):
            return Image(
                id=id,
                type=manifest.type,
                size=manifest.size,
                status="complete",
                sha256=manifest.sha256,
                format=manifest.format,
            )
        if unpublished := self._unpublished.get(id):
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
        partial = Path(tempfile.mkdtemp(prefix=f"{request.id}{_PARTIAL}", dir=self._directory))
        try:
            partial.chmod(0o755)  # QEMU reads it as another user
            manifest = self._fill(partial, request, progress)
            self._write_manifest(partial, manifest)
            publish_directory(partial, self._path(request.id))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return f"fetched {manifest.size} bytes, sha256 {manifest.sha256}"

    def _fill(self, partial: Path, request: ImageRequest, progress: Progress) -> Manifest:
        deadline_s = self._clock.monotonic_s() + self._limits.timeout_s
        disk = partial / "disk"
        sums = {"kernel": "", "initrd": ""}
        for name in sums:
            if url := getattr(request, name):
                wanted = getattr(request, f"{name}_sha256")
                sums[name], _ = self._download(url, partial / name, wanted, name, deadline_s, progress)
        sha256, size = self._download(request.source, disk, request.sha256, "source", deadline_s, progress)
        with disk.open("rb") as file:
            header = read_header(file.read(HEADER_BYTES))
        format, virtual_bytes = decide_format(header, request.format, size)
        disk.rename(partial / f"disk.{format}")
        return Manifest(
            id=request.id, type=request.type, source=request.source, sha256=sha256, format=format, size=size,
            virtual_size=virtual_bytes, kernel=request.kernel, kernel_sha256=sums["kernel"],
            initrd=request.initrd, initrd_sha256=sums["initrd"], cmdline=request.cmdline,
        )  # fmt: skip

    def _download(
        self, url: str, path: Path, wanted: str, field: str, deadline_s: float, progress: Progress
    ) -> tuple[str, int]:
        """Write what is behind `url` to `path`; its SHA-256 and its size in bytes."""
        digest, size, told = hashlib.sha256(), 0, 0
        with open_source(url, self._limits.allowed, field=field) as (pieces, length), path.open("xb") as file:
            for piece in pieces:
                size += len(piece)
                if size > self._limits.bytes_max:
                    raise ValidationError(
                        f"{field} {url!r} is over the limit of {self._limits.bytes_max} bytes (image_bytes_max)",
                        field=field,
                    )
                if self._clock.monotonic_s() > deadline_s:
                    limit = f"{self._limits.timeout_s:g} s (image_fetch_timeout_s)"
                    raise DeadlineError(f"fetching {url} took over {limit}, {size} bytes had come")
                digest.update(piece)
                file.write(piece)
                if size - told >= _PROGRESS_BYTES:
                    told = size
                    progress(f"{field}: {size >> 20} of {length >> 20} MB" if length else f"{field}: {size >> 20} MB")
            file.flush()
            os.fsync(file.fileno())
        if length is not None and size != length:
            raise UnavailableError(f"{url} ended after {size} of {length} bytes")
        if wanted and digest.hexdigest() != wanted:
            raise ValidationError(f"{field} {url!r} has the sha256 {digest.hexdigest()}, wanted {wanted}", field=field)
        path.chmod(0o644)
        return digest.hexdigest(), size

    def _show(self, request: ImageRequest, status: ImageStatus, message: str = "") -> None:
        with self._lock:
            self._unpublished[request.id] = Image(
                id=request.id, type=request.type, format=request.format, status=status, message=message
            )

    def _path(self, id: str) -> Path:
        return self._directory / id

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
