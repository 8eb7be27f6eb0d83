"""How is a file read that only libvirt may open? By libvirt's storage driver, as a volume of its directory.

What collects a guest's serial console belongs to root, whoever asked for it. A pool over the directory exists only
while the file is read.

1. One read is answered from one open file: where it begins was chosen for the size that is told.
2. A pool that a killed reader left is taken over by the next and removed.

Not guaranteed: anything where libvirt has no storage driver (its test driver has another one); it says so itself.
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

import libvirt

from lochness_node.driver.protocol import FilePart, FileWindow

_PIECE_BYTES: Final = 256 << 10


def read_stored(connection: Any, path: PurePath, pool_name: str, window: FileWindow) -> FilePart:
    """What `window` chooses of the file; nothing of one that is not there. Raises libvirtError."""
    with _pool(connection, pool_name, path.parent) as pool:
        try:
            volume = pool.storageVolLookupByName(path.name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                return FilePart(b"", 0)
            raise
        _kind, size_bytes, _allocated = volume.info()
        start, length = window(size_bytes)
        return FilePart(_downloaded(connection, volume, start, length), start)


@contextlib.contextmanager
def _pool(connection: Any, name: str, directory: PurePath) -> Iterator[Any]:
    tree = ET.Element("pool", type="dir")
    ET.SubElement(tree, "name").text = name
    ET.SubElement(ET.SubElement(tree, "target"), "path").text = str(directory)
    with contextlib.suppress(libvirt.libvirtError):
        connection.storagePoolLookupByName(name).destroy()
    pool = connection.storagePoolCreateXML(ET.tostring(tree, encoding="unicode"), 0)
    try:
        yield pool
    finally:
        with contextlib.suppress(libvirt.libvirtError):  # the next reader removes it
            pool.destroy()


def _downloaded(connection: Any, volume: Any, start: int, length: int) -> bytes:
    if not length:
        return b""
    stream = connection.newStream(0)
    try:
        volume.download(stream, start, length, 0)
        pieces = []
        while piece := stream.recv(_PIECE_BYTES):
            pieces.append(piece)
        stream.finish()
    except BaseException:
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()
        raise
    return b"".join(pieces)
