"""How does a snapshot leave the host? As one qcow2 file that needs nothing else.

1. The file is staged below the guest's directory and has no name once it is whole: it ends with its last reader.
2. Its size is known, and there is room for it, before the first byte goes out.

Not guaranteed: that a staging file is gone after a crash in the middle; it goes with the
guest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from lochness.errors import ConflictError, UnavailableError
from lochness.identity import GuestID
from lochness_node.agent.guests.decide_snapshots import PREFIX
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.qemu_img import qemu_img, qemu_img_json
from lochness_node.agent.guests.snapshots import get_snapshot, guest_disks

PIECE_BYTES: Final = 1 << 20
#: For staging a disk; a disk of 1 TB at 300 MB/s.
STAGING_TIMEOUT_S: Final = 3600.0
_STAGING: Final = "download-"
_PARTIAL: Final = ".partial"


@dataclass(frozen=True, slots=True)
class Download:
    """A staged file, to be read once by `pieces`, which closes it."""

    file: BinaryIO
    size_bytes: int

    def pieces(self) -> Iterator[bytes]:
        with self.file:
            while piece := self.file.read(PIECE_BYTES):
                yield piece


def stage_snapshot(host: Host, guest_id: GuestID, disk: str, name: str) -> Download:
    """The disk as it was, with its image's content, as a file of its own.

    `disk` may be "" for a guest with one disk. Raises NotFoundError, ConflictError (which_disk), UnavailableError when
    there is no room or too many downloads run, DriverError, DeadlineError.
    """
    with host.downloads.reading(guest_id, name):
        with host.locked(guest_id):  # not for the copy: a snapshot's content does not change, and is not deleted now
            get_snapshot(host, guest_id, disk, name)
            chosen = guest_disks(host, guest_id).chosen(disk)
        if len(chosen) > 1:
            raise ConflictError(
                f"the guest has {len(chosen)} disks; take one from /disks/DISK/snapshots/{name}/download, "
                f"DISK being one of {', '.join(chosen)}",
                reason="which_disk",
            )
        ((_, path),) = chosen.items()
        return _staged(path, name)


def _staged(path: Path, name: str) -> Download:
    snapshot = ["-U", "-f", "qcow2", "-l", f"snapshot.name={PREFIX}{name}"]
    _require_room(path, snapshot)
    descriptor, staging = tempfile.mkstemp(prefix=_STAGING, suffix=_PARTIAL, dir=path.parent)
    os.close(descriptor)
    try:
        qemu_img(
            "convert", "-q", *snapshot, "-O", "qcow2", str(path), staging,
            what=f"read snapshot {name} of {path.stem}", timeout_s=STAGING_TIMEOUT_S,
        )  # fmt: skip
        file = open(staging, "rb")  # noqa: SIM115  # closed by its reader
        return Download(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise UnavailableError(f"cannot stage the download in {path.parent}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(staging)


def _require_room(path: Path, snapshot: list[str]) -> None:
    measured = qemu_img_json(
        "measure", "--output=json", "-O", "qcow2", *snapshot, str(path), what=f"measure {path.stem}"
    )
    needed, free = int(measured["required"]), shutil.disk_usage(path.parent).free
    if needed > free:
        raise UnavailableError(
            f"the download needs {-(-needed >> 20)} MB in {path.parent}, {free >> 20} MB are free",
            needed_bytes=needed, free_bytes=free,
        )  # fmt: skip
