"""How does a specification become libvirt's domain XML, and what do we read back from one?

Invariants:
1. The XML is built as a tree; no value of a specification can add or close an element.
2. `parse_domain(domain_xml(spec))` answers the specification's id, names, sizes and ownership.
3. Ownership is only believed when it names the very domain that carries it: a clone made with other tools, which copies
   our metadata under a new UUID, is a foreign domain.

Not guaranteed: that libvirt accepts the definition (a bridge or a file may be missing); it says so itself.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Final

from lochness.errors import DriverError, ValidationError
from lochness.identity import GuestID, is_id, parse_id
from lochness_node.driver.protocol import DiskSpec, DomainSpec, NicSpec, Ownership

NAMESPACE: Final = "urn:lochness:domain:1"
OWNER: Final = "lochness"
#: Has PCI Express, and boots no slower than `pc` under emulation: 4.2 s against 5.2 s until the test guest is ready
#: (two runs each, on a busy machine: enough to say "not slower").
MACHINE: Final = "q35"

_ELEMENT: Final = f"{{{NAMESPACE}}}domain"
# What XML 1.0 cannot carry, escaped or not.
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

ET.register_namespace(OWNER, NAMESPACE)


@dataclass(frozen=True, slots=True)
class DomainDescription:
    """What a domain's XML says: sizes in MB, its disks' names in the guest, its interfaces' names on the host.

    An interface without a name on the host (its domain is not active) is "".
    """

    uuid: str
    name: str
    title: str
    memory_mb: int
    vcpus: int
    ownership: Ownership | None
    disks: tuple[str, ...]
    interfaces: tuple[str, ...]


def domain_xml(spec: DomainSpec) -> str:
    """The definition of `spec`. Raises ValidationError for a text that XML cannot carry, and for sizes below 1."""
    if spec.memory_mb < 1 or spec.vcpus < 1:
        raise ValidationError(f"a domain needs memory and a vCPU, got {spec.memory_mb} MB and {spec.vcpus}")
    domain = ET.Element("domain", type=spec.domain_type)
    _text(domain, "name", spec.guest_id)
    _text(domain, "uuid", spec.guest_id)
    if title := " ".join(spec.title.split()):  # libvirt refuses a line break there
        _text(domain, "title", title)
    _add_ownership(domain, Ownership(spec.guest_id, spec.binding_revision))
    _text(domain, "memory", str(spec.memory_mb), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus))
    _add_boot(domain, spec)
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if spec.domain_type != "test":
        # By emulation all that QEMU can do: its default model is older than what today's distributions are built for.
        ET.SubElement(domain, "cpu", mode="host-model" if spec.domain_type == "kvm" else "maximum")
    ET.SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _add_devices(domain, spec)
    return ET.tostring(_checked(domain), encoding="unicode")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _add_ownership(domain: ET.Element, ownership: Ownership) -> None:
    ET.SubElement(
        ET.SubElement(domain, "metadata"),
        _ELEMENT,
        {"owner": OWNER, "guest": ownership.guest_id, "binding-revision": str(ownership.binding_revision)},
    )


def _add_boot(domain: ET.Element, spec: DomainSpec) -> None:
    os = ET.SubElement(domain, "os")
    if spec.domain_type == "test":
        _text(os, "type", "hvm")
    else:
        _text(os, "type", "hvm", arch="x86_64", machine=MACHINE)
        if spec.firmware == "uefi":
            os.set("firmware", "efi")
            # Left to itself libvirt takes the first one described, on Debian that with Microsoft's keys: what is not
            # signed for them does not start there, and an image of one's own seldom is.
            wanted = ET.SubElement(os, "firmware")
            for feature in ("secure-boot", "enrolled-keys"):
                ET.SubElement(wanted, "feature", enabled="no", name=feature)
    if spec.boot is None:
        ET.SubElement(os, "boot", dev="hd")
        return
    _text(os, "kernel", spec.boot.kernel)
    if spec.boot.initrd:
        _text(os, "initrd", spec.boot.initrd)
    if spec.boot.cmdline:
        _text(os, "cmdline", spec.boot.cmdline)


def _add_devices(domain: ET.Element, spec: DomainSpec) -> None:
    devices = ET.SubElement(domain, "devices")
    for disk in spec.disks:
        _add_disk(devices, disk)
    for nic in spec.nics:
        _add_nic(devices, nic)
    serial = ET.SubElement(devices, "serial", type="pty")  # a pty, so that `virsh console` works beside the log
    if spec.console_log:
        ET.SubElement(serial, "log", file=spec.console_log, append="off")
    ET.SubElement(serial, "target", port="0")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "source", mode="bind")
    ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    ET.SubElement(devices, "memballoon", model="virtio")
    _text(ET.SubElement(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")


def _add_disk(devices: ET.Element, disk: DiskSpec) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(element, "driver", name="qemu", type=disk.format)
    ET.SubElement(element, "source", file=disk.path)
    ET.SubElement(element, "target", dev=disk.device, bus="virtio")
    if disk.readonly or disk.kind == "seed":
        ET.SubElement(element, "readonly")


def _add_nic(devices: ET.Element, nic: NicSpec) -> None:
    element = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "source", bridge=nic.bridge)
    if nic.switch == "openvswitch":
        ET.SubElement(element, "virtualport", type="openvswitch")
    if nic.vlans:
        vlan = ET.SubElement(element, "vlan", {"trunk": "yes"} if len(nic.vlans) > 1 else {})
        for tag in nic.vlans:
            ET.SubElement(vlan, "tag", id=str(tag))
    ET.SubElement(element, "model", type=nic.model)
    if nic.mtu:
        ET.SubElement(element, "mtu", size=str(nic.mtu))


def _checked(tree: ET.Element) -> ET.Element:
    for element in tree.iter():
        for value in (element.text or "", *element.attrib.values()):
            if _UNPRINTABLE.search(value):
                raise ValidationError(f"{element.tag} holds a character that XML cannot carry: {value!r}")
    return tree


def parse_domain(xml: str) -> DomainDescription:
    """What `xml`, as libvirt prints it, says. Raises DriverError when it cannot be read."""
    try:
        domain = ET.fromstring(xml)
        uuid = parse_id(domain.findtext("uuid", ""))
        memory_kib = int(domain.findtext("memory", "0")) * _kib(domain.find("memory"))
        vcpus = int(domain.findtext("vcpu", "1"))
    except (ET.ParseError, ValueError, ValidationError) as error:
        raise DriverError("libvirt's domain XML cannot be read") from error
    return DomainDescription(
        uuid=uuid,
        name=domain.findtext("name", ""),
        title=domain.findtext("title", ""),
        memory_mb=memory_kib // 1024,
        vcpus=vcpus,
        ownership=_ownership(domain, uuid),
        disks=tuple(target.get("dev", "") for target in domain.iterfind("devices/disk/target")),
        interfaces=tuple(_host_name(interface) for interface in domain.iterfind("devices/interface")),
    )


def _kib(memory: ET.Element | None) -> int:
    """How many KiB the unit of `memory` is. libvirt always prints KiB; ours asks in MiB."""
    return 1024 if memory is not None and memory.get("unit") == "MiB" else 1


def _ownership(domain: ET.Element, uuid: str) -> Ownership | None:
    mark = domain.find(f"metadata/{_ELEMENT}")
    if mark is None or mark.get("owner") != OWNER:
        return None
    guest, revision = mark.get("guest", ""), mark.get("binding-revision", "")
    if not is_id(guest) or parse_id(guest) != uuid or not (revision.isascii() and revision.isdigit()):
        return None
    return Ownership(GuestID(uuid), int(revision))


def _host_name(interface: ET.Element) -> str:
    target = interface.find("target")
    return target.get("dev", "") if target is not None else ""
