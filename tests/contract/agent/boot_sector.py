"""The smallest system that a BIOS starts from a disk: a boot sector that says one line on the serial console."""

from __future__ import annotations

from typing import Final

SECTOR_BYTES: Final = 512
_LINE_AT: Final = 0x21
_CODE: Final = bytes.fromhex(
    "31c0 8ed8 be217c"  # xor ax,ax; mov ds,ax; mov si,0x7c21
    "ac 84c0 7412"  #     lodsb; test al,al; jz the end
    "88c3 bafd03"  #      mov bl,al; mov dx,0x3fd
    "ec a820 74fb"  #     in al,dx; test al,0x20; jz again           the port takes a letter
    "baf803 88d8 ee"  #   mov dx,0x3f8; mov al,bl; out dx,al
    "ebe9"  #             jmp to the next letter
    "f4 ebfd"  #          hlt; jmp to the hlt
)


def boot_sector(line: str) -> bytes:
    """The sector of a disk that says `line`, ASCII, and then does nothing more."""
    text = line.encode("ascii") + b"\r\n\0"
    return (_CODE.ljust(_LINE_AT, b"\x90") + text).ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"
