"""Where in a bzImage is the kernel that a hypervisor can start at once?

QEMU starts the ELF file inside by its PVH entry, which saves the guest from unpacking it, slow work under emulation.
Knows x86 images only.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib

from lochness.errors import ConfigurationError
from lochness_lab.processes import require_program

# Documentation/arch/x86/boot.rst: offsets into the setup header.
_SETUP_SECTORS, _MAGIC, _PAYLOAD = 0x1F1, 0x202, 0x248
_SECTOR_BYTES = 512
_SIZE_BYTES = 4  # the unpacked size follows the payload, and is counted to it


def unpacked_kernel(image: bytes) -> bytes:
    """The ELF kernel of a bzImage. Raises ConfigurationError for anything else, or for a missing unpacking tool."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise ConfigurationError("the kernel is not a bzImage")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTORS] or 4) + 1) * _SECTOR_BYTES + offset
    kernel = _unpacked(image[start : start + length - _SIZE_BYTES])
    if kernel[:4] != b"\x7fELF":
        raise ConfigurationError("the kernel's payload is not an ELF file")
    return kernel


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(b"\x7fELF"):
        return payload
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x02\x21\x4c\x18"):
        return _piped([require_program("lz4", "lz4"), "-d", "-q", "-c"], payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return _piped([require_program("zstd", "zstd"), "-d", "-q", "-c"], payload)
    raise ConfigurationError(f"the kernel is packed in an unknown way: it starts with {payload[:6].hex()}")


def _piped(argv: list[str], payload: bytes) -> bytes:
    done = subprocess.run(argv, check=False, input=payload, capture_output=True, timeout=60)
    if done.returncode != 0:
        raise ConfigurationError(f"{argv[0]} cannot unpack the kernel: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
