"""The real parts that tests share: an etcd, a machine with its libvirtd, the guest image.

They are made once per test process and end with it. A part that cannot be had is a failure, never a skip.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lochness_lab.etcd import EtcdServer
from lochness_lab.guest_image import GuestImage
from lochness_lab.guest_image import guest_image as build_guest_image
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("lochness", deadline=None)
settings.load_profile("lochness")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts what ends in "&" deaf to Ctrl-C, and the commands under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd for all who leave it healthy: use a prefix of your own, and `own_etcd` to stop or freeze one."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """An empty etcd for one test, to be broken at will."""
    with EtcdServer(tmp_path / "etcd") as server:
        yield server


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine for all who leave no process, bridge or mount behind in it."""
    _require(Machine.available())
    with Machine(tmp_path_factory.mktemp("machine"), "hv1") as machine:
        yield machine


@pytest.fixture(scope="session")
def libvirtd(machine: Machine) -> Iterator[Libvirtd]:
    """The machine's libvirtd, for all who leave no domain behind and no stop or freeze in force."""
    _require(Libvirtd.available())
    with Libvirtd(machine) as daemon:
        yield daemon


@pytest.fixture
def own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine for one test, to be broken at will."""
    _require(Machine.available())
    # Not below tmp_path: with the test's name in it, libvirtd's socket would be too long a path.
    with Machine(tmp_path_factory.mktemp("own"), "own") as machine:
        yield machine


@pytest.fixture
def own_libvirtd(own_machine: Machine) -> Iterator[Libvirtd]:
    """The libvirtd of `own_machine`, to be broken at will."""
    _require(Libvirtd.available())
    with Libvirtd(own_machine) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """The demo guest's image, out of the cache or built now."""
    return build_guest_image()


def _require(reason: str | None) -> None:
    if reason is not None:
        pytest.fail(f"a real part is missing, and tests do not skip it: {reason}")
