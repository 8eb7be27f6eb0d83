"""What does this machine have? psutil's figures, in MB where there is a unit.

Host memory and CPUs are psutil's, not libvirt's: libvirt's test driver makes its up, and QEMU's are the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import psutil

from lochness.capacity import Host
from lochness.errors import UnavailableError

_MB: Final = 1 << 20
_BLOCK_BYTES: Final = 512  # the unit of st_blocks, whatever the file system's own


def host_at(guest_dir: Path) -> Host:
    """This machine, with the disk of `guest_dir`. Raises UnavailableError."""
    return Host(
        memory_mb=host_memory_mb(),
        cpus=host_cpus(),
        disk_free_mb=free_disk_mb(guest_dir),
        disk_guests_mb=used_disk_mb(guest_dir),
    )


def host_memory_mb() -> int:
    return int(psutil.virtual_memory().total) // _MB


def host_cpus() -> int:
    """Logical CPUs that are online."""
    return psutil.cpu_count(logical=True) or 1


def free_disk_mb(directory: Path) -> int:
    """What ordinary users may still write to the file system of `directory`, which is made when it is missing."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return int(psutil.disk_usage(str(directory)).free) // _MB
    except OSError as error:
        raise UnavailableError(f"cannot look at the guest disk directory {directory}: {error.strerror}") from error


def used_disk_mb(directory: Path) -> int:
    """What the files below `directory` really take (sparse files take less than their size)."""
    used_bytes = 0
    for folder, _, names in os.walk(directory):  # a folder that vanishes meanwhile is passed over
        for name in names:
            try:
                used_bytes += os.lstat(os.path.join(folder, name)).st_blocks * _BLOCK_BYTES
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UnavailableError(f"cannot look at {folder}/{name}: {error.strerror}") from error
    return used_bytes // _MB
