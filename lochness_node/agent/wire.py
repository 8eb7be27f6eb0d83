"""What goes over the wire: the JSON of WIRE.md section 6, typed and validated. Pure.

1. Fields stand in WIRE.md's order; fields of ours follow.
2. Every id that is used as a path component below was parsed as a UUID here.
3. Whatever is wrong with a request is a ValidationError that names its field.

Not guaranteed: that a bridge, an image or an address exists.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal

import msgspec

from lochness.model.address import guest_mac, normalized_ip, normalized_mac, parse_ip
from lochness.model.image import ImageRecord
from lochness.model.job import UNSET_TIME
from lochness.model.record import Metadata, Quantity, Record, normalized_id, require, require_id
from lochness_node.agent.wishes import check_wishes

#: The GuestID of jobs that belong to no guest.
AGENT: Final = "agent"

CREATE: Final = "create"
DELETE: Final = "delete"
FETCH_IMAGE: Final = "fetchImage"
CREATE_SNAPSHOT: Final = "createSnapshot"
DELETE_SNAPSHOT: Final = "deleteSnapshot"
ROLLBACK_SNAPSHOT: Final = "rollbackSnapshot"
ACTIONS: Final = ("shutdown", "reboot", "restart", "poweroff", "start", "suspend", "resume", DELETE)

DISKS_MAX: Final = 24
"""vda to vdx; one more letter stays for the seed."""
NICS_MAX: Final = 16
NIC_VLANS_MAX: Final = 256
VLAN_TAG_MAX: Final = 4095
#: What the controller sends for a guest without a VLAN group: whatever the bridge gives.
NO_VLANS: Final[tuple[list[int], ...]] = ([], [1])
_BRIDGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_NIC_MODEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_HEX_NETMASK: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{8}|[0-9a-fA-F]{32})")
_PREFIX: Final = re.compile(r"/?(\d{1,3})")


class Nic(msgspec.Struct, kw_only=True):
    """One interface. `network` is the host's bridge; `netmask` is hexadecimal (ffffff00), dotted or a prefix length.

    `vlans` is NO_VLANS when the guest has no VLAN group.
    """

    name: str = ""
    network: str = ""
    model: str = "virtio"
    mac: str = ""
    address: str = ""
    netmask: str = ""
    gateway: str = ""
    vlans: list[int] = []


class Disk(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One disk of `size` MB on top of `image` (its older name: `source`); blank for an empty one.

    `bus`, `device` and `volume` (its file) are the agent's answer.
    """

    size: Quantity
    image: str = ""
    source: str = ""
    bus: str = ""
    device: str = ""
    volume: str = ""

    @property
    def base(self) -> str:
        """The id of the image below this disk, "" for none."""
        return self.image or self.source


class Guest(Record):
    """A guest as the controller asks for it and as the agent answers it. `memory` in MB, `cpu` in vCPUs.

    `state` is only ever the agent's answer, in the words of GuestState ("missing": known here, but without a domain).
    """

    id: str = ""
    type: str = "kvm"
    image: str = ""
    nics: list[Nic] = []
    disks: list[Disk] = []
    memory: Quantity = 0
    cpu: Quantity = 0
    metadata: Metadata = {}
    state: str = ""

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")
        self.image = normalized_id(self.image, "image")
        self.type = self.type or "kvm"
        for index, disk in enumerate(self.disks):
            disk.image = normalized_id(disk.image, f"disks[{index}].image")
            disk.source = normalized_id(disk.source, f"disks[{index}].source")
        for index, nic in enumerate(self.nics):
            nic.mac = normalized_mac(nic.mac, f"nics[{index}].mac") or (guest_mac(self.id) if index == 0 else "")
            nic.address = normalized_ip(nic.address, f"nics[{index}].address")
            nic.gateway = normalized_ip(nic.gateway, f"nics[{index}].gateway")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        require(self.type == "kvm", f"type must be kvm, got {self.type!r}", "type")
        require(self.memory >= 1, "memory must be at least 1 MB", "memory")
        require(self.cpu >= 1, "cpu must be at least 1", "cpu")
        require(len(self.disks) <= DISKS_MAX, f"at most {DISKS_MAX} disks, got {len(self.disks)}", "disks")
        require(len(self.nics) <= NICS_MAX, f"at most {NICS_MAX} nics, got {len(self.nics)}", "nics")
        for index, disk in enumerate(self.disks):
            require(disk.size >= 1, f"disks[{index}].size must be at least 1 MB", f"disks[{index}].size")
        names = [nic.name or f"eth{index}" for index, nic in enumerate(self.nics)]
        require(len(set(names)) == len(names), f"the names of the nics repeat: {', '.join(names)}", "nics")
        for index, nic in enumerate(self.nics):
            _validate_nic(nic, f"nics[{index}]")
        check_wishes(self.metadata)


def _validate_nic(nic: Nic, field: str) -> None:
    for name, text in (("name", nic.name or "eth0"), ("network", nic.network)):
        require(
            _BRIDGE.fullmatch(text) is not None,
            f"{field}.{name} must name an interface, got {text!r}",
            f"{field}.{name}",
        )
    require(
        _NIC_MODEL.fullmatch(nic.model) is not None, f"{field}.model must be a model's name, got {nic.model!r}",
        f"{field}.model",
    )  # fmt: skip
    require(bool(nic.mac), f"{field}.mac is required", f"{field}.mac")
    require(
        all(1 <= tag <= VLAN_TAG_MAX for tag in nic.vlans) and len(nic.vlans) <= NIC_VLANS_MAX,
        f"{field}.vlans must be at most {NIC_VLANS_MAX} tags from 1 to {VLAN_TAG_MAX}, got {nic.vlans[:10]}",
        f"{field}.vlans",
    )
    if nic.address:
        prefix_length(nic.netmask, nic.address, f"{field}.netmask")


def prefix_length(netmask: str, address: str, field: str) -> int:
    """The length of `netmask`: hexadecimal, dotted (or IPv6 with colons), or a prefix length itself.

    Raises ValidationError naming `field`.
    """
    is_ipv6 = parse_ip(address, field).version == 6  # IPv6
    bits = 128 if is_ipv6 else 32
    message = f"{field} must be a netmask for {address}: hexadecimal, dotted or a prefix length, got {netmask!r}"
    if prefix := _PREFIX.fullmatch(netmask):
        require(int(prefix[1]) <= bits, message, field)
        return int(prefix[1])
    if digits := _HEX_NETMASK.fullmatch(netmask):
        require(len(digits[1]) * 4 == bits, message, field)
        value = int(digits[1], 16)
    else:
        try:
            mask = ipaddress.ip_address(netmask)
        except ValueError:
            mask = None
        require(mask is not None and mask.max_prefixlen == bits, message, field)
        assert mask is not None
        value = int(mask)
    ones = value.bit_count()
    require(value == ((1 << ones) - 1) << (bits - ones), message, field)
    return ones


class ImageRequest(Record):
    """What to fetch: an id and a URL (http, https, file).

    `sha256` and `size` (bytes, 0: not checked) are those of the file behind `source`, which may be compressed by gzip
    or zstd; `format` is the disk's in it, "": look at the file. The checksums are SHA-256 in hexadecimal ("": not
    checked). `kernel` and `initrd` are URLs, `cmdline` the command line for that kernel.
    """

    id: str = ""
    type: str = "kvm"
    source: str = ""
    sha256: str = ""
    size: Quantity = 0
    format: Literal["", "qcow2", "raw"] = ""
    kernel: str = ""
    kernel_sha256: str = ""
    initrd: str = ""
    initrd_sha256: str = ""
    cmdline: str = ""

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")
        self.type = self.type or "kvm"

    def validate(self) -> None:
        super().validate()
        require(self.type == "kvm", f"type must be kvm, got {self.type!r}", "type")
        require(all(letter.isprintable() for letter in self.cmdline), "cmdline must be one printable line", "cmdline")
        record = ImageRecord(
            id=self.id, source=self.source, sha256=self.sha256, kernel=self.kernel, kernel_sha256=self.kernel_sha256,
            initrd=self.initrd, initrd_sha256=self.initrd_sha256, cmdline=self.cmdline,
        )  # fmt: skip
        record.validate()
        self.sha256, self.kernel_sha256 = record.sha256, record.kernel_sha256
        self.initrd_sha256 = record.initrd_sha256


ImageStatus = Literal["pending", "downloading", "complete", "error"]


class Image(msgspec.Struct, kw_only=True, frozen=True):
    """An image as the agent answers it.

    `size` is the disk file's in bytes (0 until it is complete), `message` says what failed.
    """

    id: str
    type: str = "kvm"
    size: int = 0
    status: ImageStatus = "pending"
    sha256: str = ""
    format: str = ""
    message: str = ""


JobStatus = Literal["Queued", "Running", "Complete", "Error"]


class AgentJob(msgspec.Struct, kw_only=True, frozen=True):
    """A job as the agent answers it and keeps it. Times are RFC 3339, `UNSET_TIME` while they have not come.

    `Reason` is the stable word of an error, "" otherwise; `ImageID` is set on fetchImage jobs. `Attempts` counts how
    often it was begun: more than once when the agent ended in the middle.
    """

    id: str = msgspec.field(name="ID")
    guest_id: str = msgspec.field(name="GuestID")
    action: str = msgspec.field(name="Action")
    queued_at: str = msgspec.field(name="QueuedAt")
    started_at: str = msgspec.field(name="StartedAt", default=UNSET_TIME)
    updated_at: str = msgspec.field(name="UpdatedAt", default=UNSET_TIME)
    status: JobStatus = msgspec.field(name="Status", default="Queued")
    message: str = msgspec.field(name="Message", default="")
    progress: str = msgspec.field(name="Progress", default="")
    reason: str = msgspec.field(name="Reason", default="")
    image_id: str = msgspec.field(name="ImageID", default="")
    request_id: str = msgspec.field(name="RequestID", default="")
    attempts: int = msgspec.field(name="Attempts", default=0)

    @property
    def is_finished(self) -> bool:
        return self.status in ("Complete", "Error")

    @property
    def verb(self) -> str:
        """The action without what it is done to."""
        return self.action.partition(" ")[0]

    @property
    def line(self) -> str:
        """What is worked on one job at a time: the guest, or the image."""
        return f"{AGENT}/{self.image_id}" if self.guest_id == AGENT else self.guest_id
