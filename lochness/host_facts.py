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
from lochness.model.resources import HugePages, NumaCell

_MB: Final = 1 << 20
_NUMA: Final = Path("/sys/devices/system/node")
_BLOCK_BYTES: Final = 512  # the unit of st_blocks, whatever the file system's own


def host_at(guest_dir: Path) -> Host:
    """This machine, with the disk of `guest_dir`. Raises UnavailableError."""
    return Host(
        memory_mb=host_memory_mb(),
        cpus=host_cpus(),
        disk_free_mb=free_disk_mb(guest_dir),
        guest_disks_mb=guest_disks_mb(guest_dir),
        cells=numa_cells(),
    )


def host_memory_mb() -> int:
    return int(psutil.virtual_memory().total) // _MB


def host_cpus() -> int:
    """Logical CPUs that are online."""
    return psutil.cpu_count(logical=True) or 1


def numa_cells(directory: Path = _NUMA) -> tuple[NumaCell, ...]:
    """The machine's NUMA nodes by number, as the kernel shows them in `directory`; () when it shows none."""
    numbers = sorted(int(each.name[4:]) for each in directory.glob("node[0-9]*") if each.name[4:].isdigit())
    return tuple(_cell(number, directory / f"node{number}") for number in numbers)


def _cell(number: int, directory: Path) -> NumaCell:
    total_kb = 0
    for line in _text(directory / "meminfo").splitlines():
        words = line.split()  # Node 0 MemTotal: 16326748 kB
        if len(words) >= 4 and words[2] == "MemTotal:":
            total_kb = int(words[3])
    pages = (
        HugePages(
            size_kb=int(each.name.removeprefix("hugepages-").removesuffix("kB")),
            total=int(_text(each / "nr_hugepages") or 0),
            free=int(_text(each / "free_hugepages") or 0),
        )
        for each in directory.glob("hugepages/hugepages-*kB")
    )
    return NumaCell(
        cell=number,
        memory=total_kb // 1024,
        cpus=_text(directory / "cpulist"),
        huge_pages=tuple(sorted(pages, key=lambda each: each.size_kb)),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def free_disk_mb(directory: Path) -> int:
    """What ordinary users may still write to the file system of `directory`, which is made when it is missing."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return int(psutil.disk_usage(str(directory)).free) // _MB
    except OSError as error:
        raise UnavailableError(f"cannot look at the guest disk directory {directory}: {error.strerror}") from error


def guest_disks_mb(guest_dir: Path) -> dict[str, int]:
    """What the files of each folder in `guest_dir` take, by its name; {} when there is no such directory."""
    try:
        folders = [entry.name for entry in os.scandir(guest_dir) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UnavailableError(f"cannot look at {guest_dir}: {error.strerror}") from error
    return {name: used_disk_mb(guest_dir / name) for name in folders}


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
