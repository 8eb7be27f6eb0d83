"""How does a disk file come to be?

1. A disk appears whole, by a rename, and its bytes are on the disk by then; one that is there is never touched. So a
   power cut leaves no empty file under its name, which the create that goes on afterwards would take for the disk.
2. Its format and its image's are said: nothing is guessed from content.

On libvirt's test driver, where nothing ever reads a disk, a machine without qemu-img gets sparse raw files instead.
QEMU guests always get qcow2 overlays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lochness.errors import UnavailableError
from lochness_node.agent.durable import sync_file
from lochness_node.agent.guests.access import keep_access
from lochness_node.agent.guests.plan import DiskPlan
from lochness_node.agent.guests.qemu_img import QEMU_IMG, qemu_img

DiskFormat = Literal["qcow2", "raw"]


def disk_format(domain_type: str, find_program: Callable[[str], str | None] = shutil.which) -> DiskFormat:
    """The format of guests' disks here. Raises UnavailableError when qemu-img is missing and guests are real."""
    if find_program(QEMU_IMG):
        return "qcow2"
    if domain_type == "test":
        return "raw"
    raise UnavailableError("qemu-img is not installed (Debian package qemu-utils): no disk can be made")


def make_disk(plan: DiskPlan, bring_to_disk: Callable[[Path], None] = sync_file) -> bool:
    """Make the disk, False when it is there already. Raises DriverError, DeadlineError, UnavailableError.

    `bring_to_disk` ends when all of a file is where a power cut does not reach it, or raises OSError.
    """
    if plan.path.exists():
        return False
    partial = plan.path.with_name(f"{plan.path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        if plan.format == "raw":
            with partial.open("xb") as file:
                file.truncate(plan.size_mb << 20)
        else:
            _qemu_img(plan, partial)
        partial.chmod(0o600)  # what is in it is the guest's alone; libvirt gives it to QEMU's user
        if (user_id := os.geteuid()) != 0:
            keep_access(partial, user_id)
        bring_to_disk(partial)
        partial.rename(plan.path)
    except OSError as error:
        raise UnavailableError(f"cannot make the disk {plan.path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # what a failure left of it
    return True


def _qemu_img(plan: DiskPlan, path: Path) -> None:
    base = ["-b", str(plan.base.disk), "-F", plan.base.format] if plan.base is not None else []
    qemu_img("create", "-q", "-f", plan.format, *base, str(path), f"{plan.size_mb}M", what=f"make {plan.path}")
