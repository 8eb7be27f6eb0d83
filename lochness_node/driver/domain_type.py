"""Do guests run on KVM here, or by emulation?

A host may offer /dev/kvm, and libvirt report its guests as running, while no guest ever gets past its firmware (nested
virtualisation does that). So KVM is believed only after a tiny machine has proved it: its firmware reads a boot sector
from a floppy disk, which needs interrupts and DMA to work; the boot sector builds page tables, enters 64-bit mode, as
every guest's kernel must, and ends QEMU with an exit code of its own from there. Before that it exchanges 16 bytes at
once, as Linux does when it first allocates memory: where KVM has the guest's instructions emulated by the host's kernel
and not by the processor, that one is unknown, and the guest stands still with an "internal error".

Invariants:
1. Asked to choose, `choose_domain_type` answers "kvm" only after that proof. The proof is tried once per process, and
   with a `cache` file once per boot of the machine and version of QEMU.
2. The self-test ends within `SELF_TEST_LIMIT_S` and about a second for the killing.

Not guaranteed: that KVM keeps working, or that a guest finds the CPU features it wants.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lochness_node.driver.protocol import DomainType, HostFacts

DomainTypeSetting = Literal["auto", "kvm", "qemu"]

EMULATOR: Final = "qemu-system-x86_64"
#: The same machine needs 0.2 s by emulation; one that works on KVM is faster.
SELF_TEST_LIMIT_S: Final = 3.0
_KILL_LIMIT_S: Final = 1.0

# isa-debug-exit turns a byte b written to its port into the exit code 2b + 1; no failure of QEMU's own has this one.
_PROOF: Final = 0x2A
_PROOF_EXIT_CODE: Final = 2 * _PROOF + 1
_BOOT_SECTOR_BYTES: Final = 512
_BOOT_CODE: Final = bytes.fromhex(
    "fa 31c0 8ed8 8ec0"  #               cli; xor ax,ax; mov ds,ax; mov es,ax
    "bf0010 b90018 fc f3ab"  #           mov di,0x1000; mov cx,0x1800; cld; rep stosw      zero three tables
    "c70600100320"  #                    mov word [0x1000],0x2003                          PML4[0] -> 0x2000
    "c70600200330"  #                    mov word [0x2000],0x3003                          PDPT[0] -> 0x3000
    "c70600308300"  #                    mov word [0x3000],0x0083                          PD[0]: 2 MiB at 0
    "66b800100000 0f22d8"  #             mov eax,0x1000; mov cr3,eax
    "0f20e0 0c20 0f22e0"  #              mov eax,cr4; or al,0x20; mov cr4,eax              PAE
    "66b9800000c0 0f32 80cc01 0f30"  #   mov ecx,0xc0000080; rdmsr; or ah,1; wrmsr         EFER.LME
    "0f0116707c"  #                      lgdt [0x7c70]
    "0f20c0 660d01000080 0f22c0"  #      mov eax,cr0; or eax,0x80000001; mov cr0,eax       paging, protection
    "ea767c0800"  #                      jmp 8:0x7c76                                      64-bit from there
    "00000000000000000000"  #            (padding)
    "0000000000000000 00000000009a2000"  # 0x7c60: descriptors: null, 64-bit code
    "0f00 607c0000"  #                   0x7c70: limit and address of the descriptor table
    "31c0 31d2 31db 31c9"  #     0x7c76: xor eax,eax; xor edx,edx; xor ebx,ebx; xor ecx,ecx
    "f0480fc70c25f03f0000"  #            lock cmpxchg16b [0x3ff0]: the zeros at a table's end by zeros
    "7504"  #                            jne +4
    "b02a e6f4"  #                       mov al,0x2a; out 0xf4,al                          the proof
    "f4 ebfd"  #                         hlt; jmp -3
)


@dataclass(frozen=True, slots=True)
class DomainTypeChoice:
    """The type for new domains, and why, for people."""

    domain_type: DomainType
    reason: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Whether guests execute on an accelerator, and how that was seen, for people."""

    works: bool
    reason: str


def choose_domain_type(setting: DomainTypeSetting, host: HostFacts, cache: Path | None = None) -> DomainTypeChoice:
    """The type for domains on `host`; `setting` "kvm" or "qemu" is obeyed, "auto" lets the self-test decide.

    `cache` is a file that keeps the test's answer; its directory exists. One that cannot be used is as none.

    May take `SELF_TEST_LIMIT_S`, the first time. Raises nothing.
    """
    if host.hypervisor == "test":
        return DomainTypeChoice("test", "libvirt's test driver runs no guests")
    if setting != "auto":
        return DomainTypeChoice(setting, "the configuration says so")
    if host.arch != "x86_64":
        return DomainTypeChoice("qemu", f"there is no self-test of kvm for {host.arch}")
    if "kvm" not in host.domain_types:
        return DomainTypeChoice("qemu", "libvirt offers no kvm on this host")
    tested = kvm_self_test() if cache is None else _remembered_self_test(cache)
    return DomainTypeChoice("kvm" if tested.works else "qemu", tested.reason)


@functools.cache
def kvm_self_test() -> SelfTest:
    """Whether guests execute on KVM on this machine. Tried once per process."""
    return self_test("kvm")


def _remembered_self_test(cache: Path) -> SelfTest:
    """As `kvm_self_test`, out of `cache` while nothing has changed that could change the answer."""
    tested_on = _tested_on()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(cache.read_bytes())
        if tested_on and kept["tested_on"] == tested_on:
            return SelfTest(bool(kept["works"]), f"{kept['reason']} (tested before, since this machine's boot)")
    tested = kvm_self_test()
    with contextlib.suppress(OSError):
        kept = {"tested_on": tested_on, "works": tested.works, "reason": tested.reason}
        partial = cache.with_name(f"{cache.name}.partial")
        partial.write_text(json.dumps(kept))
        partial.replace(cache)
    return tested


def _tested_on() -> str:
    """This test, the boot of this machine and the emulator's file. KVM's modules and settings live no longer.

    "" when that is unknown.
    """
    try:
        emulator = os.stat(shutil.which(EMULATOR) or "")
        has_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return (
        f"{zlib.crc32(_BOOT_CODE):08x} {boot} {emulator.st_ino} {emulator.st_size} {emulator.st_mtime_ns} kvm={has_kvm}"
    )


def self_test(
    accelerator: Literal["kvm", "tcg"], *, limit_s: float = SELF_TEST_LIMIT_S, cpu: str = "qemu64"
) -> SelfTest:
    """Boot the tiny machine on `accelerator` and wait for its proof, at most `limit_s`. `cpu` is QEMU's model."""
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        return SelfTest(False, f"{EMULATOR} is not installed")
    with tempfile.TemporaryDirectory(prefix="lochness-self-test-") as directory:
        floppy = Path(directory, "boot")
        floppy.write_bytes(_BOOT_CODE.ljust(_BOOT_SECTOR_BYTES - 2, b"\0") + b"\x55\xaa")
        return _booted(_command(emulator, accelerator, cpu, floppy), accelerator, limit_s)


def _command(emulator: str, accelerator: str, cpu: str, floppy: Path) -> list[str]:
    return [
        *(emulator, "-machine", "pc", "-accel", accelerator, "-cpu", cpu, "-m", "16"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-drive", f"file={floppy},format=raw,if=floppy,readonly=on"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
    ]


def _booted(command: list[str], accelerator: str, limit_s: float) -> SelfTest:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        return SelfTest(False, f"{EMULATOR} does not start: {error.strerror}")
    try:
        _, complaint = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            process.communicate(timeout=_KILL_LIMIT_S)
        except subprocess.TimeoutExpired:  # stuck in the kernel; nothing here can end it
            return SelfTest(False, f"a test machine on {accelerator} hung and cannot be killed")
        return SelfTest(False, f"a test machine on {accelerator} did not reach 64-bit code within {limit_s:g} s")
    if process.returncode == _PROOF_EXIT_CODE:
        return SelfTest(True, f"a test machine on {accelerator} executed 64-bit code")
    said = " ".join(complaint.split())[-200:] or f"exit code {process.returncode}"
    return SelfTest(False, f"a test machine on {accelerator} failed: {said}")
