"""What does a request for a guest become: which files, which domain? And what of what is here already? Pure.

1. Every path is `directory`, which the caller made of the guest's parsed id, and a name of ours.
2. A disk is never smaller than the image it stands on.
3. A disk that may hold a guest's data is never replaced: with a domain, only the same guest is taken up again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Final, Literal

import msgspec

from lochness.errors import ConflictError, ValidationError
from lochness.identity import GuestID
from lochness_node.agent.guests.seed import Seed, seed_for
from lochness_node.agent.images.decide import CachedImage
from lochness_node.agent.wire import NO_VLANS, Disk, Guest, Nic
from lochness_node.agent.wishes import firmware
from lochness_node.driver.bridges import Bridge
from lochness_node.driver.protocol import DiskSpec, DomainSpec, DomainType, NicSpec

GUEST_DIFFERS: Final = "guest_differs"
SEED_FILE: Final = "seed.iso"
CONSOLE_FILE: Final = "console.log"
VLANS_NOT_SUPPORTED: Final = "vlans_not_supported"
NO_BRIDGES: Final[Mapping[str, Bridge]] = {}
_BYTES_PER_MB: Final = 1 << 20
#: What a virtio interface has by itself, and the least and the most that can be asked of it (IPv4's least, 16 bits).
_USUAL_MTU: Final = 1500
_MTU_MIN: Final = 68
_MTU_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """One disk file to make: `size_mb` MB on top of `base` (None: empty). `format` is the file's own."""

    path: Path
    format: Literal["qcow2", "raw"]
    size_mb: int
    base: CachedImage | None


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """All there is to make in `directory`, and the domain that uses it."""

    directory: Path
    disks: tuple[DiskPlan, ...]
    seed: Seed
    seed_path: Path
    spec: DomainSpec


def plan_guest(
    guest: Guest,
    directory: Path,
    images: Mapping[str, CachedImage],
    *,
    binding_revision: int,
    domain_type: DomainType,
    disk_format: Literal["qcow2", "raw"],
    bridges: Mapping[str, Bridge] = NO_BRIDGES,
) -> GuestPlan:
    """What a valid `guest` becomes. `images` holds those it stands on, by id, `bridges` those it is on, by name.

    Raises ValidationError when a disk is smaller than its image, ConflictError (vlans_not_supported).
    """
    disks = tuple(
        _disk(disk, index, directory, images.get(disk.base) if disk.base else None, disk_format)
        for index, disk in enumerate(guest.disks)
    )
    specs = [DiskSpec(str(disk.path), device(index), disk.format) for index, disk in enumerate(disks)]
    seed_path = directory / SEED_FILE
    # A read-only disk, not a CD-ROM: whatever boots from a virtio disk can read it too.
    specs.append(DiskSpec(str(seed_path), device(len(disks)), "raw", readonly=True))
    boots = images.get(boot_image(guest))
    spec = DomainSpec(
        guest_id=GuestID(guest.id),
        binding_revision=binding_revision,
        title=title(guest),
        memory_mb=guest.memory,
        vcpus=guest.cpu,
        domain_type=domain_type,
        disks=tuple(specs),
        nics=tuple(_nic(nic, bridges.get(nic.network, Bridge())) for nic in guest.nics),
        boot=boots.boot if boots else None,
        console_log=str(directory / CONSOLE_FILE),
        firmware=firmware(guest.metadata),
    )
    return GuestPlan(directory, disks, seed_for(guest), seed_path, spec)


def _nic(nic: Nic, bridge: Bridge) -> NicSpec:
    vlans = () if nic.vlans in NO_VLANS else tuple(dict.fromkeys(nic.vlans))
    if vlans and bridge.no_vlans:
        raise ConflictError(
            f"bridge {nic.network} cannot carry the VLANs {', '.join(map(str, vlans))}: {bridge.no_vlans}",
            reason=VLANS_NOT_SUPPORTED,
        )
    is_given = bridge.mtu != _USUAL_MTU and _MTU_MIN <= bridge.mtu <= _MTU_MAX
    mtu = bridge.mtu if is_given else 0
    return NicSpec(nic.mac, nic.network, nic.model or "virtio", vlans, bridge.switch, mtu)


def _disk(
    disk: Disk, index: int, directory: Path, base: CachedImage | None, format: Literal["qcow2", "raw"]
) -> DiskPlan:
    if base is not None and disk.size * _BYTES_PER_MB < base.virtual_bytes:
        needed_mb = -(-base.virtual_bytes // _BYTES_PER_MB)
        raise ValidationError(
            f"disks[{index}] is {disk.size} MB, smaller than its image {base.id} with {needed_mb} MB",
            field=f"disks[{index}].size",
        )
    return DiskPlan(directory / f"{device(index)}.{format}", format, disk.size, base)


def device(index: int) -> str:
    """vda, vdb ..."""
    return f"vd{ascii_lowercase[index]}"


def title(guest: Guest) -> str:
    """The guest's name as one printable line, "" for none."""
    name = "".join(letter if letter.isprintable() else " " for letter in guest.metadata.get("name", ""))
    return " ".join(name.split())[:128]


def boot_image(guest: Guest) -> str:
    """The id of the image the guest boots from, "" for none."""
    return guest.image or (guest.disks[0].base if guest.disks else "")


def images_of(guest: Guest) -> tuple[str, ...]:
    """The ids of all images the guest stands on, each once."""
    ids = (boot_image(guest), *(disk.base for disk in guest.disks))
    return tuple(dict.fromkeys(id for id in ids if id))


def shown_disks(guest: Guest, directory: Path, disk_format: str) -> list[Disk]:
    """The guest's disks with what the agent answers beside them: bus, device and volume."""
    return [
        msgspec.structs.replace(
            disk, bus="virtio", device=device(index), volume=str(directory / f"{device(index)}.{disk_format}")
        )
        for index, disk in enumerate(guest.disks)
    ]


def decide_leftover(remembered: Guest | None, guest: Guest, *, has_domain: bool) -> Literal["complete", "replace"]:
    """Whether what an earlier create left (not running now) is completed or replaced.

    Raises ConflictError (reason "guest_differs") when a domain stands on other disks than those asked for.
    """
    if remembered is not None and _stands_on(remembered) == _stands_on(guest):
        return "complete"
    if has_domain:
        raise ConflictError(
            f"guest {guest.id} is here with other disks than those asked for; delete it first", reason=GUEST_DIFFERS
        )
    return "replace"


def _stands_on(guest: Guest) -> list[tuple[int, str]]:
    return [(disk.size, disk.base) for disk in guest.disks]
