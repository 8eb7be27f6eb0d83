"""Where does a cloud image come from? It is built here, from the packages that Debian's own is made of.

1. An image is complete or does not exist: it is built aside and renamed. Its name says what it was made of.
2. Two who build at once do not clash: the second waits and takes the first's.
3. As in an image from Debian, nothing in it is of one machine: no name, no key, no address, no machine-id. What a guest
   becomes it has from its seed, by cloud-init.

It has a partition table, so that the disk can be seen to grow, and no boot loader: its kernel and initrd lie beside it.
An image that is there is used as it is: it is not rebuilt because Debian has newer packages.
"""

from __future__ import annotations

import importlib.resources
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lochness_lab.guest_image import default_cache
from lochness_lab.hosts.commands import run
from lochness_lab.hosts.roots import Tell, aside, bootstrap, debian_release, digest_of, only_builder
from lochness_lab.processes import require_program

#: What decides about a guest's first boot in Debian's genericcloud image: netplan for systemd-networkd, resolved, sudo.
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "systemd-resolved", "libpam-systemd", "dbus", "udev", "netplan.io", "iproute2"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "openssh-server", "sudo"),
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd"),
)
#: Of the image; a guest's disk is larger.
DISK_BYTES: Final = 2 << 30
DISK_LIMIT_S: Final = 1800.0

_FIRST_SECTOR, _SECTOR_BYTES = 2048, 512
_SIGNATURE = 0x10C4E550  # of the disk, by which the kernel finds its partition
_CMDLINE: Final = f"root=PARTUUID={_SIGNATURE:08x}-01 ro console=ttyS0"
_FSTAB: Final = f"PARTUUID={_SIGNATURE:08x}-01 / ext4 rw,discard,errors=remount-ro 0 1\n"
_LINUX_PARTITION = 0x83


@dataclass(frozen=True, slots=True)
class CloudImage:
    """A built image: its files below `directory`, and the kernel's command line."""

    directory: Path
    disk: Path
    kernel: Path
    initrd: Path
    cmdline: str


def cloud_image(cache: Path | None = None, *, tell: Tell) -> CloudImage:
    """The image from the cache, built first when it is not there: a minute or two. Needs root.

    Raises ConfigurationError (no Debian, a missing program), UnavailableError, DeadlineError.
    """
    cache = cache or default_cache()
    recipe = importlib.resources.files("lochness_lab").joinpath("cloud_image.py").read_text()
    directory = cache / f"cloud-{debian_release()}-{digest_of(recipe)}"
    cache.mkdir(parents=True, exist_ok=True)
    with only_builder(cache / "cloud.lock"):
        if not directory.exists():
            tell(
                f"a cloud image of Debian {debian_release()}, {len(PACKAGES)} packages and what they depend on; "
                "once, some minutes"
            )
            with aside(directory) as new:
                _build(new)
    return CloudImage(directory, directory / "disk.qcow2", directory / "vmlinuz", directory / "initrd.img", _CMDLINE)


def _build(directory: Path) -> None:
    root, raw = directory / "root", directory / "disk.raw"
    root.mkdir(mode=0o755)
    bootstrap(root, PACKAGES)
    _make_anybodys(root)
    for name in ("vmlinuz", "initrd.img"):
        (kernel_file,) = (root / "boot").glob(f"{name}-*")
        shutil.copyfile(kernel_file, directory / name)
    _make_disk(root, raw)
    qemu_img = require_program("qemu-img", "qemu-utils")
    qcow2 = str(directory / "disk.qcow2")
    run([qemu_img, "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), qcow2], limit_s=DISK_LIMIT_S)
    raw.unlink()
    shutil.rmtree(root)


def _make_anybodys(root: Path) -> None:
    """What is of one machine in a Debian just installed is taken out, and what Debian's own image has is put in."""
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("localhost\n")
    (root / "etc/fstab").write_text(_FSTAB)
    (root / "etc/default/locale").write_text("LANG=C.UTF-8\n")  # else cloud-init generates en_US, which is not all here


def _make_disk(root: Path, raw: Path) -> None:
    """A disk with one partition, whose file system holds what is below `root`."""
    with raw.open("wb") as disk:
        disk.truncate(DISK_BYTES)
        disk.write(_partition_table())
    first_byte = _FIRST_SECTOR * _SECTOR_BYTES
    run(
        [
            *(require_program("mkfs.ext4", "e2fsprogs"), "-q", "-F", "-d", str(root), "-E", f"offset={first_byte}"),
            *(str(raw), f"{(DISK_BYTES - first_byte) // 1024}k"),
        ],
        limit_s=DISK_LIMIT_S,
    )


def _partition_table() -> bytes:
    """The first sector of a disk with one partition, up to the disk's end."""
    no_chs = b"\xfe\xff\xff"  # cylinders, heads and sectors, which nobody asks for any more
    sectors = DISK_BYTES // _SECTOR_BYTES - _FIRST_SECTOR
    partition = struct.pack("<B3sB3sII", 0x80, no_chs, _LINUX_PARTITION, no_chs, _FIRST_SECTOR, sectors)
    return bytes(440) + struct.pack("<IH", _SIGNATURE, 0) + partition.ljust(64, b"\0") + b"\x55\xaa"
