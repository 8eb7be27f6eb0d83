"""What a guest's metadata asks of the host, and what is made of it: seed, firmware, switches."""

from __future__ import annotations

import json

import pytest

from lochness.errors import ConflictError, ValidationError
from lochness_node.agent.guests.plan import plan_guest
from lochness_node.agent.guests.seed import seed_for
from lochness_node.agent.wishes import check_wishes, firmware, nameservers, ssh_keys
from lochness_node.driver.bridges import LINUX_VLANS_SINCE, Bridge, look_at_bridge
from lochness_node.driver.protocol import NicSpec
from tests.unit.node.test_agent_guests import DIRECTORY, NIC, guest, image

KEYS = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKq9vYvq me@host",
    "ecdsa-sha2-nistp256 AAAAE2VjZHNh",
    'from="10.0.0.0/8",no-pty ssh-rsa AAAAB3NzaC1yc2E= somebody else',
    "sk-ssh-ed25519@openssh.com AAAAGnNr key",
)


def test_the_seed_has_the_keys_and_nameservers_that_the_metadata_names() -> None:
    metadata = {"ssh-keys": "\n".join(["", *KEYS, "  "]), "nameservers": "10.0.0.53, FD00::53"}
    seed = seed_for(guest(metadata=metadata))
    assert json.loads(seed.meta_data)["public-keys"] == list(KEYS)
    interface = json.loads(seed.network_config)["ethernets"]["eth0"]
    assert interface["nameservers"] == {"addresses": ["10.0.0.53", "fd00::53"]}


def test_an_ipv6_guest_is_static_too() -> None:
    nic = {**NIC, "address": "fd00:1::5", "netmask": "ffff:ffff:ffff:ffff::", "gateway": "fd00:1::1"}
    interface = json.loads(seed_for(guest(nics=[nic])).network_config)["ethernets"]["eth0"]
    assert interface["addresses"] == ["fd00:1::5/64"]
    assert interface["routes"] == [{"to": "::/0", "via": "fd00:1::1"}]


def test_metadata_that_asks_for_nothing_gives_the_defaults() -> None:
    assert (firmware({}), ssh_keys({}), nameservers({})) == ("bios", [], [])
    assert (firmware({"firmware": "bios"}), firmware({"firmware": "uefi"})) == ("bios", "uefi")


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"firmware": "UEFI"}, "metadata.firmware"),
        ({"ssh-keys": "not a key"}, "metadata.ssh-keys"),
        ({"ssh-keys": f"{KEYS[0]}\nssh-rsa"}, "metadata.ssh-keys"),
        ({"ssh-keys": "\n".join([KEYS[0]] * 101)}, "metadata.ssh-keys"),
        ({"nameservers": "10.0.0.1 dns.example"}, "metadata.nameservers"),
        ({"nameservers": " ".join(["10.0.0.1"] * 9)}, "metadata.nameservers"),
    ],
)
def test_what_cannot_be_is_refused_naming_the_field(metadata: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        check_wishes(metadata)
    assert refused.value.field == field


def nics(bridge: Bridge, vlans: list[int]) -> tuple[NicSpec, ...]:
    planned = plan_guest(
        guest(nics=[{**NIC, "vlans": vlans}]), DIRECTORY, {image().id: image()},
        binding_revision=7, domain_type="qemu", disk_format="qcow2", bridges={"br0": bridge},
    )  # fmt: skip
    return planned.spec.nics


def test_vlans_go_to_a_bridge_that_has_them() -> None:
    (nic,) = nics(Bridge("openvswitch"), [7, 9, 7])
    assert (nic.switch, nic.vlans) == ("openvswitch", (7, 9))


@pytest.mark.parametrize("vlans", [[], [1]])
def test_without_a_vlan_group_any_bridge_will_do(vlans: list[int]) -> None:
    (nic,) = nics(Bridge(no_vlans="it has none"), vlans)
    assert nic.vlans == ()


def test_vlans_on_a_bridge_that_has_none_are_refused_with_the_reason() -> None:
    with pytest.raises(ConflictError, match="bridge br0 cannot carry the VLANs 7, 9: it has none") as refused:
        nics(Bridge(no_vlans="it has none"), [7, 9])
    assert refused.value.reason == "vlans_not_supported"


@pytest.mark.parametrize(
    ("filtering", "libvirt_version", "why"),
    [
        ("0", LINUX_VLANS_SINCE, "does not filter VLANs"),
        ("1", LINUX_VLANS_SINCE - 1, "libvirt 10.999.999 puts ports into VLANs there only from 11.0.0 on"),
        ("1", LINUX_VLANS_SINCE, ""),
    ],
)
def test_a_linux_bridge_carries_vlans_when_it_filters_them_and_libvirt_knows_how(
    tmp_path, filtering: str, libvirt_version: int, why: str
) -> None:
    (tmp_path / "br0" / "bridge").mkdir(parents=True)
    (tmp_path / "br0" / "bridge" / "vlan_filtering").write_text(f"{filtering}\n")
    bridge = look_at_bridge("br0", lambda: libvirt_version, tmp_path)
    assert bridge.switch == "linux"
    assert why in bridge.no_vlans
    assert bool(bridge.no_vlans) == bool(why)


@pytest.mark.parametrize(("mtu", "wanted"), [(0, 0), (1500, 0), (1450, 1450), (9000, 9000), (65536, 0), (40, 0)])
def test_a_guest_has_its_bridges_packet_size_where_that_is_not_the_usual_one(mtu: int, wanted: int) -> None:
    (nic,) = nics(Bridge(mtu=mtu), [])
    assert nic.mtu == wanted


@pytest.mark.parametrize(("text", "mtu"), [("1450\n", 1450), ("", 0), (None, 0)])
def test_a_bridges_packet_size_is_read_where_it_can_be(tmp_path, text: str | None, mtu: int) -> None:
    (tmp_path / "br0" / "bridge").mkdir(parents=True)
    if text is not None:
        (tmp_path / "br0" / "mtu").write_text(text)
    assert look_at_bridge("br0", lambda: LINUX_VLANS_SINCE, tmp_path).mtu == mtu


def test_libvirt_is_not_asked_for_what_the_bridge_alone_decides(tmp_path) -> None:
    def asked() -> int:
        raise AssertionError("libvirt was asked for its version: that takes all of its capabilities")

    (tmp_path / "br0" / "bridge").mkdir(parents=True)
    assert "does not filter" in look_at_bridge("br0", asked, tmp_path).no_vlans
    assert look_at_bridge("eth0", asked, tmp_path).no_vlans


def test_what_is_no_bridge_carries_no_vlans(tmp_path) -> None:
    assert "neither" in look_at_bridge("br0", lambda: LINUX_VLANS_SINCE, tmp_path).no_vlans
