"""How are files put into an initramfs without the cpio tool, and in which order do kernel modules load?

1. An archive depends on nothing but what was put in: no times, owners or inode numbers of the building machine.
2. Modules come after the modules they need.
"""

from __future__ import annotations

import lzma
import re
import stat
from collections.abc import Iterable, Mapping


class Initramfs:
    """An archive in the "newc" format of the kernel's Documentation/driver-api/early-userspace/buffer-format."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def directory(self, *names: str) -> None:
        for name in names:
            self._add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        self._add(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        self._add(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def finish(self) -> bytes:
        """The archive with its trailer. Nothing may be added after."""
        self._add("TRAILER!!!", 0)
        return bytes(self._data)

    def _add(self, name: str, mode: int, content: bytes = b"", *, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (2), the device it stands for (2), length of name, checksum
        numbers = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        self._data += b"070701" + b"".join(b"%08X" % number for number in numbers) + path
        self._pad()
        self._data += content
        self._pad()

    def _pad(self) -> None:
        self._data += b"\0" * (-len(self._data) % 4)


def module_name(path: str) -> str:
    """The kernel's name of a module file: "virtio_rng" for ".../virtio-rng.ko.xz"."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def unpacked_module(path: str, content: bytes) -> bytes:
    """The module's ELF file; Debian compresses modules from release 13 on."""
    return lzma.decompress(content) if path.endswith(".xz") else content


def needed_modules(content: bytes) -> list[str]:
    """The modules that a module needs, out of its .modinfo section."""
    match = re.search(rb"\0depends=([^\0]*)\0", content)
    names = match[1].decode() if match else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def load_order(wanted: Iterable[str], modules: Mapping[str, bytes]) -> list[str]:
    """`wanted` and all they need, each after what it needs. A name not in `modules` is built into the kernel."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in modules:
            return
        for needed in needed_modules(modules[name]):
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order
