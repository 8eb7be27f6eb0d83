"""A specification as libvirt's XML, and what is read back from it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lochness.errors import DriverError, ValidationError
from lochness.identity import GuestID
from lochness_node.driver.domain_xml import NAMESPACE, domain_xml, parse_domain
from lochness_node.driver.protocol import DirectBoot, DiskSpec, DomainSpec, NicSpec, Ownership

GUEST = GuestID("3b1c1a52-9c0f-4f3e-8d7a-5a1d5f3f9e01")
OTHER = "3b1c1a52-9c0f-4f3e-8d7a-5a1d5f3f9e02"
SPEC = DomainSpec(
    guest_id=GUEST,
    binding_revision=4711,
    title="web 1",
    memory_mb=512,
    vcpus=2,
    domain_type="qemu",
    disks=(DiskSpec("/disks/a.qcow2", "vda"), DiskSpec("/disks/seed.iso", "vdb", "raw", kind="seed")),
    nics=(NicSpec("02:00:00:00:00:05", "br0"),),
    boot=DirectBoot("/boot/kernel", "/boot/initrd", "console=ttyS0"),
    console_log="/logs/console.log",
)

# Text that XML can carry, the characters of its syntax over-represented.
PRINTABLE = st.text(
    st.one_of(st.sampled_from("<>&'\"]]>/= \t\n"), st.characters(exclude_categories=["Cs", "Cc", "Cn"])), max_size=40
)


def element(tree: ET.Element, path: str) -> ET.Element:
    found = tree.find(path)
    assert found is not None, path
    return found


def test_what_was_put_in_is_read_back():
    told = parse_domain(domain_xml(SPEC))
    assert (told.uuid, told.name, told.title) == (GUEST, GUEST, "web 1")
    assert (told.memory_mb, told.vcpus) == (512, 2)
    assert told.ownership == Ownership(GUEST, 4711)
    assert told.disks == ("vda", "vdb")
    assert told.interfaces == ("",)


def test_disks_and_boot_are_as_specified():
    tree = ET.fromstring(domain_xml(SPEC))
    disk, seed = tree.findall("devices/disk")
    assert (element(disk, "driver").attrib, disk.find("readonly")) == ({"name": "qemu", "type": "qcow2"}, None)
    assert element(seed, "driver").get("type") == "raw"
    assert seed.find("readonly") is not None
    assert tree.findtext("os/kernel") == "/boot/kernel"
    assert tree.find("os/boot") is None
    assert element(tree, "devices/serial/log").get("file") == "/logs/console.log"


def test_a_disk_is_booted_when_no_kernel_is_given():
    tree = ET.fromstring(domain_xml(replace(SPEC, boot=None, console_log="")))
    assert element(tree, "os/boot").get("dev") == "hd"
    assert tree.find("os/kernel") is None
    assert tree.find("devices/serial/log") is None


@given(path=PRINTABLE, cmdline=PRINTABLE, bridge=PRINTABLE, title=PRINTABLE)
def test_no_text_breaks_out_of_its_place(path, cmdline, bridge, title):
    hostile = replace(
        SPEC,
        title=title,
        disks=(DiskSpec(path, "vda"),),
        nics=(NicSpec("02:00:00:00:00:05", bridge),),
        boot=DirectBoot("/k", "", cmdline),
    )
    plain = ET.fromstring(domain_xml(replace(SPEC, disks=SPEC.disks[:1], boot=DirectBoot("/k", "", "c"))))
    tree = ET.fromstring(domain_xml(hostile))
    optional = {"title", "cmdline"}  # left out when empty
    assert [each.tag for each in tree.iter() if each.tag not in optional] == [
        each.tag for each in plain.iter() if each.tag not in optional
    ]
    assert element(tree, "devices/disk/source").get("file") == path
    assert element(tree, "devices/interface/source").get("bridge") == bridge
    assert tree.findtext("title", "") == " ".join(title.split())
    assert tree.findtext("os/cmdline", "") == cmdline


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31m", "\ud800", "\uffff"])
def test_what_xml_cannot_carry_is_refused(text):
    with pytest.raises(ValidationError):
        domain_xml(replace(SPEC, boot=DirectBoot("/k", "", text)))


@pytest.mark.parametrize(("memory_mb", "vcpus"), [(0, 1), (-1, 1), (64, 0)])
def test_a_domain_without_memory_or_processor_is_refused(memory_mb, vcpus):
    with pytest.raises(ValidationError):
        domain_xml(replace(SPEC, memory_mb=memory_mb, vcpus=vcpus))


@pytest.mark.parametrize(
    "mark",
    [
        "",
        "<metadata/>",
        f"<metadata><l:domain xmlns:l='urn:other' owner='lochness' guest='{GUEST}' binding-revision='1'/></metadata>",
        f"<metadata><l:domain xmlns:l='{NAMESPACE}' owner='nova' guest='{GUEST}' binding-revision='1'/></metadata>",
        f"<metadata><l:domain xmlns:l='{NAMESPACE}' owner='lochness' guest='{GUEST}'/></metadata>",
        f"<metadata><l:domain xmlns:l='{NAMESPACE}' owner='lochness' guest='{GUEST}' binding-revision='x'/></metadata>",
        f"<metadata><l:domain xmlns:l='{NAMESPACE}' owner='lochness' guest='x' binding-revision='1'/></metadata>",
        # virt-clone copies the metadata under a new UUID
        f"<metadata><l:domain xmlns:l='{NAMESPACE}' owner='lochness' guest='{OTHER}' binding-revision='1'/></metadata>",
    ],
)
def test_a_domain_that_does_not_say_it_is_ours_is_foreign(mark):
    head, size = f"<name>n</name><uuid>{GUEST}</uuid>", "<memory unit='KiB'>1048576</memory><vcpu>1</vcpu>"
    told = parse_domain(f"<domain>{head}{mark}{size}</domain>")
    assert told.ownership is None
    assert told.memory_mb == 1024


@pytest.mark.parametrize("xml", ["", "<domain>", "<domain><uuid>x</uuid></domain>"])
def test_unreadable_xml_is_a_driver_error(xml):
    with pytest.raises(DriverError):
        parse_domain(xml)


@pytest.mark.parametrize(("domain_type", "mode"), [("kvm", "host-model"), ("qemu", "maximum")], ids=["kvm", "qemu"])
def test_the_guest_gets_the_cpu_that_the_accelerator_can_give(domain_type, mode):
    tree = ET.fromstring(domain_xml(replace(SPEC, domain_type=domain_type)))
    assert element(tree, "cpu").get("mode") == mode


def test_uefi_is_libvirts_to_find_without_the_keys_of_others():
    os = element(ET.fromstring(domain_xml(replace(SPEC, firmware="uefi"))), "os")
    assert os.get("firmware") == "efi"
    features = {each.get("name"): each.get("enabled") for each in os.iterfind("firmware/feature")}
    assert features == {"secure-boot": "no", "enrolled-keys": "no"}
    assert element(ET.fromstring(domain_xml(SPEC)), "os").get("firmware") is None


def test_a_port_is_put_into_its_vlans():
    nics = (
        NicSpec("02:00:00:00:00:05", "br0", vlans=(7,), switch="openvswitch"),
        NicSpec("02:00:00:00:00:06", "br0", vlans=(7, 9)),
        NicSpec("02:00:00:00:00:07", "br0"),
    )
    access, trunk, plain = ET.fromstring(domain_xml(replace(SPEC, nics=nics))).findall("devices/interface")
    assert element(access, "virtualport").get("type") == "openvswitch"
    assert (element(access, "vlan").attrib, element(access, "vlan/tag").attrib) == ({}, {"id": "7"})
    assert element(trunk, "vlan").attrib == {"trunk": "yes"}
    assert [tag.get("id") for tag in trunk.findall("vlan/tag")] == ["7", "9"]
    assert trunk.find("virtualport") is None
    assert plain.find("vlan") is None
