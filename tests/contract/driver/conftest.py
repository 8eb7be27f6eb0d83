"""The contract runs on libvirt's test driver and on QEMU in a machine of its own. A missing QEMU fails, never skips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from tests.contract.driver.hypervisors import Hypervisor

BRIDGE = "br0"


@pytest.fixture(scope="session")
def driver_libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    """A libvirtd in a machine with the bridge `BRIDGE`."""
    missing = Libvirtd.available()
    assert missing is None, missing
    with Machine(tmp_path_factory.mktemp("hv"), "driver-contract") as machine:
        machine.bridge(BRIDGE, "10.99.0.1/24")
        with Libvirtd(machine) as libvirtd:
            yield libvirtd


@pytest.fixture
def qemu(driver_libvirtd: Libvirtd, tmp_path: Path) -> Iterator[Hypervisor]:
    hypervisor = Hypervisor(driver_libvirtd.uri_outside, "qemu", tmp_path)
    yield hypervisor
    hypervisor.close()


@pytest.fixture(params=["test", "qemu"])
def hypervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hypervisor]:
    if request.param == "qemu":
        yield request.getfixturevalue("qemu")
        return
    made = Hypervisor("test:///default", "test", tmp_path)
    yield made
    made.close()
