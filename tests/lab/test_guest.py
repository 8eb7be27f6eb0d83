"""The guest image boots on a real libvirt and QEMU, takes its name and address from the seed, and obeys."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import pytest

from lochness_lab.guest_domain import GuestDomain
from lochness_lab.waiting import wait_until

BOOT_LIMIT_S = 50


def comm(pid):
    return Path(f"/proc/{pid}/comm").read_text()


@pytest.fixture
def bridge(machine):
    name = f"br{uuid.uuid4().hex[:8]}"
    machine.bridge(name, "10.7.0.1/24")
    machine.run(["ip", "address", "add", "fd00:7::1/64", "dev", name, "nodad"])
    yield name
    machine.run(["ip", "link", "delete", name])


@contextlib.contextmanager
def running(libvirtd, guest):
    guest.write_seed()
    definition = guest.seed.with_suffix(".xml")
    definition.write_text(guest.xml())
    libvirtd.virsh("create", str(definition))
    try:
        yield
    finally:
        libvirtd.virsh("destroy", guest.name, is_checked=False)


@pytest.mark.parametrize(
    ("address", "gateway", "seed_device"),
    [("10.7.0.5/24", "10.7.0.1", "disk"), ("10.7.0.6/24", "10.7.0.1", "cdrom"), ("fd00:7::5/64", "fd00:7::1", "disk")],
)
@pytest.mark.timeout(120)
def test_a_guest_boots_answers_and_shuts_down(
    machine, libvirtd, guest_image, bridge, tmp_path, address, gateway, seed_device
):
    guest = GuestDomain(
        name="nessie",
        image=guest_image,
        bridge=bridge,
        address=address,
        gateway=gateway,
        console=tmp_path / "console",
        seed=tmp_path / "seed.iso",
        seed_device=seed_device,
    )
    bare = address.partition("/")[0]
    with running(libvirtd, guest):
        wait_until(
            lambda: "nessie ready: GUEST-READY" in guest.console.read_text(),
            limit_s=BOOT_LIMIT_S,
            what="ready guest; its console is in the test's directory",
        )
        assert f"GUEST-IP {bare} " in guest.console.read_text()
        assert machine.run(["ping", "-c", "1", "-W", "2", bare]).returncode == 0
        libvirtd.virsh("shutdown", "nessie")
        wait_until(
            lambda: "nessie" not in libvirtd.virsh("list", "--name").stdout.split(), limit_s=10, what="guest shut down"
        )
        assert "GUEST-POWERBUTTON" in guest.console.read_text()


def test_guests_outlive_their_libvirtd_and_not_their_machine(own_machine, own_libvirtd, guest_image, tmp_path):
    own_machine.bridge("br0", "10.7.0.1/24")
    guest = GuestDomain(
        name="nessie",
        image=guest_image,
        bridge="br0",
        address="10.7.0.5/24",
        gateway="10.7.0.1",
        console=tmp_path / "console",
        seed=tmp_path / "seed.iso",
    )
    with running(own_libvirtd, guest):
        own_libvirtd.kill()
        (qemu_outside,) = (pid for pid in own_machine.pids() if comm(pid).startswith("qemu-system"))
        own_libvirtd.start()
        assert own_libvirtd.virsh("domstate", "nessie").stdout.strip() == "running"
        own_machine.power_off()
        own_machine.power_on()
        own_libvirtd.kill()
        own_libvirtd.start()
        assert own_libvirtd.virsh("list", "--name").stdout.strip() == ""
        assert not Path(f"/proc/{qemu_outside}").exists()
