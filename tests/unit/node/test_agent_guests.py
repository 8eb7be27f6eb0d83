"""What a request for a guest becomes: prefix lengths, seed, disks, domain; and what is made of leftovers."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lochness.errors import ConflictError, UnavailableError, ValidationError
from lochness.model.address import guest_mac
from lochness_node.agent.guests.disks import disk_format
from lochness_node.agent.guests.iso import seed_image
from lochness_node.agent.guests.plan import GuestPlan, decide_leftover, images_of, plan_guest
from lochness_node.agent.guests.seed import NO_USER_DATA, host_name, seed_for
from lochness_node.agent.images.decide import CachedImage
from lochness_node.agent.wire import Guest, prefix_length
from lochness_node.driver.protocol import DirectBoot, DiskSpec, NicSpec

# Fixed: they stand in the names of tests, which must be the same in every process that runs them.
ID, IMAGE, OTHER = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")
DIRECTORY = Path("/guests") / ID
NIC = {
    "name": "eth0", "network": "br0", "mac": "02:E4:13:09:B7:B4", "address": "10.10.10.170", "netmask": "ffffff00",
    "gateway": "10.10.10.1", "vlans": [1],
}  # fmt: skip


def guest(**changes: Any) -> Guest:
    fields = {"id": ID, "image": IMAGE, "nics": [NIC], "disks": [{"size": 8, "image": IMAGE}], "memory": 64, "cpu": 2}
    made = Guest.from_fields({**fields, **changes})
    made.validate()
    return made


def image(id: str = IMAGE, *, megabytes: int = 8, boot: DirectBoot | None = None) -> CachedImage:
    return CachedImage(id, Path("/images") / id / "disk.qcow2", "qcow2", megabytes << 20, boot)


def plan(wanted: Guest, *images: CachedImage) -> GuestPlan:
    by_id = {each.id: each for each in images}
    return plan_guest(wanted, DIRECTORY, by_id, binding_revision=7, domain_type="qemu", disk_format="qcow2")


# ------------------------------------------------------------------------------------------------------------ netmask


@given(st.integers(0, 32))
def test_every_ipv4_netmask_in_every_spelling(length: int) -> None:
    mask = ipaddress.ip_network(f"0.0.0.0/{length}").netmask
    for text in (mask.packed.hex(), mask.packed.hex().upper(), f"0x{mask.packed.hex()}", str(mask), str(length)):
        assert prefix_length(text, "10.0.0.1", "netmask") == length


@given(st.integers(0, 128))
def test_every_ipv6_netmask_in_every_spelling(length: int) -> None:
    mask = ipaddress.ip_network(f"::/{length}").netmask
    for text in (mask.packed.hex(), str(mask), f"/{length}"):
        assert prefix_length(text, "fd00::1", "netmask") == length


@pytest.mark.parametrize(
    ("netmask", "address"),
    [
        ("", "10.0.0.1"),
        ("33", "10.0.0.1"),
        ("ff00ff00", "10.0.0.1"),
        ("255.0.255.0", "10.0.0.1"),
        ("ffff::", "10.0.0.1"),
        ("ffffff", "10.0.0.1"),
        ("255.255.255.0", "fd00::1"),
        ("129", "fd00::1"),
        ("nonsense", "10.0.0.1"),
        ("24\n", "10.0.0.1"),
    ],
)
def test_what_is_no_netmask_is_refused(netmask: str, address: str) -> None:
    with pytest.raises(ValidationError) as refused:
        prefix_length(netmask, address, "nics[0].netmask")
    assert refused.value.field == "nics[0].netmask"


# --------------------------------------------------------------------------------------------------------------- seed


def test_the_seed_says_who_and_where_the_guest_is() -> None:
    seed = seed_for(guest(metadata={"name": "Web 1"}))
    assert json.loads(seed.meta_data) == {"instance-id": ID, "local-hostname": "web-1"}
    assert seed.network_config.startswith('{\n  "version": 2,')
    assert json.loads(seed.network_config) == {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": "02:e4:13:09:b7:b4"},
                "set-name": "eth0",
                "addresses": ["10.10.10.170/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.10.10.1"}],
            }
        },
    }
    assert seed.user_data == NO_USER_DATA


def test_without_gateway_and_nameservers_the_seed_has_no_word_of_them() -> None:
    """An empty list of addresses is an invalid command to cloud-init 22.4: a traceback on the guest's console."""
    seed = seed_for(guest(nics=[{"network": "br0", "address": "10.10.10.170", "netmask": "255.255.255.0"}]))
    interface = json.loads(seed.network_config)["ethernets"]["eth0"]
    assert set(interface) == {"match", "set-name", "addresses"}


def test_user_data_is_handed_on_as_it_is() -> None:
    assert seed_for(guest(metadata={"user-data": "#!/bin/sh\n"})).user_data == "#!/bin/sh\n"


def test_an_interface_without_an_address_asks_for_one() -> None:
    seed = seed_for(guest(nics=[{"network": "br0"}]))
    interface = json.loads(seed.network_config)["ethernets"]["eth0"]
    assert interface == {"match": {"macaddress": guest_mac(ID)}, "set-name": "eth0", "dhcp4": True}


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("web-1", "web-1"),
        ("web_1.example.org", "web-1"),
        ("-Web-", "web"),
        ("x" * 70, "x" * 63),
        ("a" * 62 + "-b", "a" * 62),
        ("", ID.partition("-")[0]),
        ("\n..", ID.partition("-")[0]),
        ("ü", ID.partition("-")[0]),
    ],
)
def test_host_names_are_ones_that_a_host_may_have(name: str, host: str) -> None:
    assert host_name(guest(metadata={"name": name})) == host


def test_the_seeds_volume_is_the_one_cloud_init_looks_for() -> None:
    content = seed_image(seed_for(guest()))
    assert content[32808:32814] == b"cidata"  # the label of an ISO 9660 volume


# --------------------------------------------------------------------------------------------------------------- plan


def test_a_plan_names_every_file_and_the_domain() -> None:
    boot = DirectBoot("/k", "/i", "console=ttyS0")
    planned = plan(guest(metadata={"name": " Web\n1 "}), image(boot=boot))
    spec = planned.spec
    assert [(disk.path, disk.size_mb, disk.base) for disk in planned.disks] == [
        (DIRECTORY / "vda.qcow2", 8, image(boot=boot))
    ]
    assert spec.disks == (
        DiskSpec(f"{DIRECTORY}/vda.qcow2", "vda", "qcow2"),
        DiskSpec(f"{DIRECTORY}/seed.iso", "vdb", "raw", readonly=True),
    )
    assert spec.nics == (NicSpec("02:e4:13:09:b7:b4", "br0"),)
    assert (spec.guest_id, spec.binding_revision, spec.memory_mb, spec.vcpus) == (ID, 7, 64, 2)
    assert (spec.title, spec.domain_type, spec.boot) == ("Web 1", "qemu", boot)
    assert spec.console_log == f"{DIRECTORY}/console.log"


def test_the_seed_comes_after_all_disks_and_blank_disks_have_no_base() -> None:
    planned = plan(guest(disks=[{"size": 8, "source": IMAGE}, {"size": 1}]), image())
    assert [disk.device for disk in planned.spec.disks] == ["vda", "vdb", "vdc"]
    assert [disk.base for disk in planned.disks] == [image(), None]


def test_a_guest_may_have_no_disk() -> None:
    planned = plan(guest(disks=[]), image(boot=DirectBoot("/k", "", "")))
    assert planned.disks == ()
    assert [disk.device for disk in planned.spec.disks] == ["vda"]
    assert planned.spec.boot is not None


def test_a_disk_smaller_than_its_image_is_refused_with_both_sizes() -> None:
    almost = CachedImage(IMAGE, Path("/i"), "raw", (8 << 20) + 1, None)
    with pytest.raises(ValidationError, match=r"is 8 MB, smaller than its image .* with 9 MB"):
        plan(guest(), almost)


def test_a_guest_stands_on_each_of_its_images_once() -> None:
    disks = [{"size": 1, "image": OTHER}, {"size": 1, "image": IMAGE}, {"size": 1}]
    assert images_of(guest(disks=disks)) == (IMAGE, OTHER)
    assert images_of(guest(image="", disks=disks)) == (OTHER, IMAGE)


# ---------------------------------------------------------------------------------------------------------- leftovers


def test_leftovers_of_the_same_guest_are_completed() -> None:
    for has_domain in (True, False):
        assert decide_leftover(guest(memory=128), guest(), has_domain=has_domain) == "complete"


def test_leftovers_without_a_domain_are_replaced_when_they_differ() -> None:
    assert decide_leftover(guest(disks=[{"size": 9, "image": IMAGE}]), guest(), has_domain=False) == "replace"
    assert decide_leftover(None, guest(), has_domain=False) == "replace"


def test_a_disk_that_may_hold_data_is_never_replaced() -> None:
    for remembered in (guest(disks=[{"size": 9, "image": IMAGE}]), None):
        with pytest.raises(ConflictError) as refused:
            decide_leftover(remembered, guest(), has_domain=True)
        assert refused.value.reason == "guest_differs"


def test_only_the_test_driver_goes_without_qemu_img() -> None:
    assert disk_format("qemu", lambda _: "/usr/bin/qemu-img") == "qcow2"
    assert disk_format("test", lambda _: None) == "raw"
    with pytest.raises(UnavailableError, match="qemu-utils"):
        disk_format("kvm", lambda _: None)
