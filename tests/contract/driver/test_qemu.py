"""What only a real hypervisor shows: guests that boot, a libvirtd that restarts, and one that hangs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lochness.errors import DeadlineError, LochnessError, UnavailableError
from lochness.identity import GuestID
from lochness_lab.guest_domain import write_seed
from lochness_lab.guest_image import MEMORY_MB, GuestImage, guest_image
from lochness_lab.waiting import wait_until
from lochness_node.driver.domain_type import choose_domain_type, kvm_self_test, self_test
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import ConnectionState, DirectBoot, DiskSpec, DomainState, EventKind, NicSpec
from tests.contract.driver.conftest import BRIDGE
from tests.contract.driver.hypervisors import Events

BOOT_LIMIT_S = 60.0
RECOVERY_LIMIT_S = 20.0


@pytest.fixture(scope="session")
def image() -> GuestImage:
    return guest_image()


def wait_for_console(log: Path, word: str) -> None:
    wait_until(
        lambda: log.exists() and word in log.read_text(errors="replace"), limit_s=BOOT_LIMIT_S, what=f"{word} in {log}"
    )


@pytest.mark.timeout(150)
def test_a_guest_has_the_packet_size_it_is_given(qemu, image, tmp_path):
    console, seed = tmp_path / "console.log", tmp_path / "seed.iso"
    mac = "02:00:00:00:00:06"
    ethernet = {"match": {"macaddress": mac}, "set-name": "eth0", "addresses": ["10.99.0.6/24"]}
    write_seed(
        seed,
        {
            "meta-data": "instance-id: one\nlocal-hostname: one\n",
            "network-config": json.dumps({"version": 2, "ethernets": {"eth0": ethernet}}),
            "user-data": '#!/bin/sh\necho "GUEST-MTU $(cat /sys/class/net/eth0/mtu)."\n',
        },
    )
    qemu.started(
        memory_mb=MEMORY_MB,
        boot=DirectBoot(str(image.kernel), str(image.initrd), image.cmdline),
        disks=(DiskSpec(str(seed), "vda", format="raw", kind="seed"),),
        nics=(NicSpec(mac, BRIDGE, mtu=1442),),
        console_log=str(console),
    )
    wait_for_console(console, "GUEST-MTU 1442.")


@pytest.mark.timeout(150)
def test_a_real_guest_boots_is_measured_and_obeys_the_power_button(qemu, image, tmp_path):
    console = tmp_path / "console.log"
    guest_id = qemu.started(
        memory_mb=MEMORY_MB,
        boot=DirectBoot(str(image.kernel), str(image.initrd), image.cmdline),
        disks=(qemu.disk(),),
        nics=(NicSpec("02:00:00:00:00:05", BRIDGE),),
        console_log=str(console),
    )
    wait_for_console(console, "GUEST-READY")
    metrics = qemu.driver.metrics(guest_id)
    assert 0 < metrics.cpu.vcpu_time_ns <= metrics.cpu.cpu_time_ns
    (disk,) = metrics.disks
    assert disk.read_ops > 0
    assert disk.read_bytes >= 512
    (nic,) = metrics.nics
    assert nic.name == "net0"
    qemu.driver.shutdown(guest_id)
    qemu.wait_for_state(guest_id, DomainState.STOPPED)
    assert qemu.driver.domain(guest_id).reason == "shutdown"
    qemu.events.wait_for(guest_id, EventKind.STOPPED)
    assert "GUEST-POWERBUTTON" in console.read_text(errors="replace")


def test_after_a_restart_of_libvirtd_the_driver_recovers_and_events_flow_again(qemu, driver_libvirtd):
    guest_id = qemu.started()
    driver_libvirtd.restart()
    qemu.events.wait_for_connection(ConnectionState.LOST)
    assert wait_for_answer(qemu.driver, guest_id) is DomainState.RUNNING
    qemu.events.wait_for_connection(ConnectionState.RECOVERED)
    qemu.events.wait_for(None, EventKind.RESYNC)
    qemu.driver.suspend(guest_id)
    qemu.events.wait_for(guest_id, EventKind.SUSPENDED)
    assert qemu.events.states == [ConnectionState.LOST, ConnectionState.RECOVERED]


def test_while_libvirtd_is_down_calls_fail_at_once(qemu, driver_libvirtd):
    driver_libvirtd.kill()
    try:
        qemu.events.wait_for_connection(ConnectionState.LOST)
        started_s = time.monotonic()
        for _ in range(20):
            with pytest.raises(UnavailableError):
                qemu.driver.domains()
        assert time.monotonic() - started_s < 2
    finally:
        driver_libvirtd.start()
    wait_for_answer(qemu.driver)


def test_a_driver_made_before_libvirtd_is_up_connects_when_it_is(driver_libvirtd):
    driver_libvirtd.stop()
    driver = LibvirtDriver(driver_libvirtd.uri_outside)
    events = Events(driver)
    try:
        with pytest.raises(UnavailableError, match="cannot connect"):
            driver.domains()
    finally:
        driver_libvirtd.start()
    wait_for_answer(driver)
    driver.close()
    assert events.states == []  # it was never connected, so nothing was lost


def test_a_frozen_libvirtd_costs_a_deadline_and_is_recovered_from(driver_libvirtd):
    limit_s = 1.0
    driver = LibvirtDriver(driver_libvirtd.uri_outside, call_timeout_s=limit_s)
    events = Events(driver)
    driver.domains()
    driver_libvirtd.freeze()
    try:
        started_s = time.monotonic()
        with pytest.raises(DeadlineError, match="within"):
            driver.domains()
        assert time.monotonic() - started_s < limit_s + 0.5
        events.wait_for_connection(ConnectionState.LOST, limit_s=0)
        errors = [error_of_a_call(driver, limit_s) for _ in range(10)]
        assert {type(error) for error in errors} <= {DeadlineError, UnavailableError}
    finally:
        driver_libvirtd.thaw()
    wait_for_answer(driver)
    events.wait_for(None, EventKind.RESYNC)
    assert events.states == [ConnectionState.LOST, ConnectionState.RECOVERED]
    driver.close()


def test_a_change_given_up_while_libvirtd_was_frozen_is_not_begun_afterwards(qemu, driver_libvirtd):
    """The call hangs in its look-up; the start behind it must not happen when libvirtd comes back."""
    guest_id = qemu.defined()
    driver = LibvirtDriver(driver_libvirtd.uri_outside, call_timeout_s=0.5)
    events = Events(driver)
    driver.domains()
    driver_libvirtd.freeze()
    try:
        with pytest.raises(DeadlineError):
            driver.start(guest_id)
    finally:
        driver_libvirtd.thaw()
    assert wait_for_answer(driver, guest_id) is DomainState.STOPPED
    assert EventKind.STARTED not in qemu.events.of(guest_id)
    events.wait_for_connection(ConnectionState.RECOVERED)
    driver.close()


@pytest.mark.timeout(120)
def test_a_start_may_take_longer_than_other_calls(qemu, driver_libvirtd):
    """The first start on a machine that is busy and has just booted takes longer than a question may."""
    guest_id = qemu.defined()
    driver = LibvirtDriver(driver_libvirtd.uri_outside, call_timeout_s=0.5)
    driver.domains()
    driver_libvirtd.freeze()
    with ThreadPoolExecutor(max_workers=1) as threads:
        try:
            start = threads.submit(driver.start, guest_id, timeout_s=BOOT_LIMIT_S)
            with pytest.raises(DeadlineError):  # a question that begins after the start
                driver.host()
        finally:
            driver_libvirtd.thaw()
        start.result(timeout=BOOT_LIMIT_S)
    assert wait_for_answer(driver, guest_id) is DomainState.RUNNING
    driver.close()


def test_emulation_passes_the_self_test_and_kvm_is_only_chosen_when_it_does_too(qemu):
    emulated = self_test("tcg", limit_s=20)
    assert emulated.works, emulated.reason
    host = qemu.driver.host()
    chosen = choose_domain_type("auto", host)
    if "kvm" in host.domain_types:
        assert chosen.domain_type == ("kvm" if kvm_self_test().works else "qemu")
        assert chosen.reason == kvm_self_test().reason
    else:
        assert chosen.domain_type == "qemu"


def test_a_machine_that_linux_does_not_run_on_fails_the_self_test():
    """It enters 64-bit mode, and cannot exchange 16 bytes at once; KVM that emulates instructions is such a one."""
    assert not self_test("tcg", limit_s=20, cpu="qemu64,-cx16").works


def test_the_self_test_ends_in_time():
    started_s = time.monotonic()
    tested = self_test("tcg", limit_s=0.001)
    assert not tested.works
    assert "within 0.001 s" in tested.reason
    assert time.monotonic() - started_s < 2


def wait_for_answer(driver: LibvirtDriver, guest_id: GuestID | None = None) -> DomainState | None:
    """Call until the driver has recovered; the guest's state then."""

    def answered() -> list[DomainState | None]:
        try:
            if guest_id is None:
                driver.domains()
                return [None]
            return [driver.domain(guest_id).state]
        except (UnavailableError, DeadlineError):
            return []

    return wait_until(answered, limit_s=RECOVERY_LIMIT_S, what="answer from libvirt")[0]


def error_of_a_call(driver: LibvirtDriver, limit_s: float) -> LochnessError:
    started_s = time.monotonic()
    with pytest.raises(LochnessError) as raised:
        driver.domains()
    assert time.monotonic() - started_s < limit_s + 0.5
    return raised.value
