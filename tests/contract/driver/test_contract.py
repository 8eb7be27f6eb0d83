"""What every daemon relies on, on libvirt's test driver and on QEMU alike."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lochness.errors import ConflictError, DriverError, NotFoundError, UnavailableError
from lochness.identity import GuestID, new_id
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import (
    FOREIGN_DOMAIN,
    CpuMetrics,
    DirectBoot,
    DiskMetrics,
    DomainState,
    EventKind,
    NicSpec,
    Ownership,
)
from tests.contract.driver.hypervisors import Events

CHANGES = ["start", "shutdown", "reboot", "reset", "destroy", "suspend", "resume", "undefine"]


def test_the_host_is_described(hypervisor):
    host = hypervisor.driver.host()
    assert host.hypervisor == hypervisor.domain_type
    assert hypervisor.domain_type in host.domain_types
    assert host.memory_mb > 64
    assert host.cpus >= 1
    assert host.hostname


def test_a_defined_domain_is_listed_with_what_was_asked_for(hypervisor):
    guest_id = hypervisor.defined(binding_revision=4711, title='<"Bob\'s" & co>', memory_mb=64, vcpus=2)
    (found,) = [domain for domain in hypervisor.driver.domains() if domain.uuid == guest_id]
    assert found == hypervisor.driver.domain(guest_id)
    assert (found.name, found.title) == (guest_id, '<"Bob\'s" & co>')
    assert (found.memory_mb, found.vcpus) == (64, 2)
    assert found.state is DomainState.STOPPED
    assert not found.state.is_active
    assert found.ownership == Ownership(guest_id, 4711)


def test_the_list_is_sorted_by_uuid(hypervisor):
    for _ in range(4):
        hypervisor.defined()
    uuids = [domain.uuid for domain in hypervisor.driver.domains()]
    assert uuids == sorted(uuids)


def test_defining_again_replaces_the_definition(hypervisor):
    spec = hypervisor.spec(memory_mb=32)
    hypervisor.driver.define(spec)
    hypervisor.driver.define(replace(spec, memory_mb=48, binding_revision=8))
    found = hypervisor.driver.domain(spec.guest_id)
    assert (found.memory_mb, found.ownership) == (48, Ownership(spec.guest_id, 8))


def test_a_running_domain_keeps_what_it_was_started_with_until_its_next_start(hypervisor):
    spec = hypervisor.spec(binding_revision=7)
    hypervisor.driver.define(spec)
    hypervisor.driver.start(spec.guest_id)
    hypervisor.driver.define(replace(spec, binding_revision=8))
    found = hypervisor.driver.domain(spec.guest_id)
    assert (found.state, found.ownership) == (DomainState.RUNNING, Ownership(spec.guest_id, 7))
    hypervisor.driver.destroy(spec.guest_id)
    hypervisor.driver.start(spec.guest_id)
    assert hypervisor.driver.domain(spec.guest_id).ownership == Ownership(spec.guest_id, 8)


def test_start_and_destroy_are_idempotent(hypervisor):
    guest_id = hypervisor.defined()
    for _ in range(2):
        hypervisor.driver.start(guest_id)
        assert hypervisor.state(guest_id) is DomainState.RUNNING
    for _ in range(2):
        hypervisor.driver.destroy(guest_id)
        assert hypervisor.state(guest_id) is DomainState.STOPPED
    assert hypervisor.driver.domain(guest_id).reason == "destroyed"


def test_suspend_and_resume_are_idempotent(hypervisor):
    guest_id = hypervisor.started()
    for _ in range(2):
        hypervisor.driver.suspend(guest_id)
        assert hypervisor.state(guest_id) is DomainState.PAUSED
    assert hypervisor.state(guest_id).is_active
    hypervisor.driver.start(guest_id)  # active already: not a resume
    assert hypervisor.state(guest_id) is DomainState.PAUSED
    for _ in range(2):
        hypervisor.driver.resume(guest_id)
        assert hypervisor.state(guest_id) is DomainState.RUNNING


def test_a_stopped_domain_is_shut_down_already_and_cannot_be_suspended(hypervisor):
    guest_id = hypervisor.defined()
    hypervisor.driver.shutdown(guest_id)
    for refused in (hypervisor.driver.suspend, hypervisor.driver.resume, hypervisor.driver.reset):
        with pytest.raises(DriverError) as raised:
            refused(guest_id)
        assert isinstance(raised.value.details["libvirt_code"], int)
    assert hypervisor.state(guest_id) is DomainState.STOPPED


def test_reset_and_reboot_leave_it_running(hypervisor):
    guest_id = hypervisor.started()
    hypervisor.driver.reset(guest_id)
    hypervisor.driver.reboot(guest_id)
    assert hypervisor.state(guest_id) is DomainState.RUNNING


@pytest.mark.parametrize("state", ["stopped", "running", "paused"])
@pytest.mark.parametrize("has_snapshot", [False, True], ids=["plain", "snapshot"])
def test_undefine_works_from_any_state(hypervisor, state, has_snapshot):
    disk = hypervisor.disk()
    guest_id = hypervisor.defined(disks=(disk,))
    if has_snapshot:
        hypervisor.snapshot(guest_id)
    if state != "stopped":
        hypervisor.driver.start(guest_id)
    if state == "paused":
        hypervisor.driver.suspend(guest_id)
    hypervisor.driver.undefine(guest_id)
    assert guest_id not in {domain.uuid for domain in hypervisor.driver.domains()}
    assert Path(disk.path).exists()
    with pytest.raises(NotFoundError):
        hypervisor.driver.undefine(guest_id)


@pytest.mark.parametrize("call", [*CHANGES, "domain", "metrics"])
def test_a_missing_domain_is_not_found(hypervisor, call):
    missing = GuestID(new_id())
    with pytest.raises(NotFoundError) as raised:
        getattr(hypervisor.driver, call)(missing)
    assert (raised.value.kind, raised.value.id) == ("guest", missing)


def test_a_foreign_domain_is_seen_and_never_changed(hypervisor):
    uuid = hypervisor.foreign(name="somebody else's")
    found = hypervisor.driver.domain(GuestID(uuid))
    assert (found.name, found.ownership, found.memory_mb) == ("somebody else's", None, 48)
    assert found in hypervisor.driver.domains()
    for change in CHANGES:
        with pytest.raises(ConflictError) as raised:
            getattr(hypervisor.driver, change)(GuestID(uuid))
        assert raised.value.reason == FOREIGN_DOMAIN
    with pytest.raises(ConflictError):
        hypervisor.driver.define(hypervisor.spec(guest_id=GuestID(uuid)))
    assert hypervisor.driver.domain(GuestID(uuid)) == found


def test_a_name_taken_by_a_foreign_domain_is_a_conflict(hypervisor):
    spec = hypervisor.spec()
    hypervisor.foreign(name=spec.guest_id)
    with pytest.raises(ConflictError, match="not ours"):
        hypervisor.driver.define(spec)


def test_a_definition_that_libvirt_refuses_says_why(hypervisor):
    with pytest.raises(DriverError, match="define"):
        hypervisor.driver.define(hypervisor.spec(nics=(NicSpec("not a mac", "br0"),)))


def test_a_guest_killed_by_somebody_else_is_seen_as_stopped(hypervisor):
    guest_id = hypervisor.started()
    hypervisor.kill_beside(guest_id)
    hypervisor.events.wait_for(guest_id, EventKind.STOPPED)
    assert hypervisor.state(guest_id) is DomainState.STOPPED
    hypervisor.driver.destroy(guest_id)


def test_events_arrive_on_a_thread_of_the_driver(hypervisor):
    guest_id = hypervisor.started()
    for change, kind in [
        (hypervisor.driver.suspend, EventKind.SUSPENDED),
        (hypervisor.driver.resume, EventKind.RESUMED),
        (hypervisor.driver.destroy, EventKind.STOPPED),
        (hypervisor.driver.undefine, EventKind.UNDEFINED),
    ]:
        change(guest_id)
        hypervisor.events.wait_for(guest_id, kind)
    told = hypervisor.events.of(guest_id)
    assert told[0] is EventKind.DEFINED
    assert EventKind.STARTED in told
    assert threading.current_thread() not in hypervisor.events.threads


def test_metrics_of_a_running_and_a_stopped_domain(hypervisor):
    guest_id = hypervisor.started(disks=(hypervisor.disk(),))
    running = hypervisor.driver.metrics(guest_id)
    assert running.cpu.cpu_time_ns > 0
    assert [disk.disk for disk in running.disks] == ["vda"]
    hypervisor.driver.destroy(guest_id)
    stopped = hypervisor.driver.metrics(guest_id)
    assert stopped.cpu == CpuMetrics(0, 0)
    assert stopped.disks == (DiskMetrics("vda", 0, 0, 0, 0, 0, 0, 0, 0),)
    assert (running.nics, stopped.nics) == ((), ())


def test_many_threads_share_a_driver(hypervisor):
    guest_ids = [hypervisor.defined() for _ in range(6)]
    failures: list[Exception] = []

    def live_and_die(guest_id):
        try:
            hypervisor.driver.start(guest_id)
            hypervisor.driver.domains()
            hypervisor.driver.undefine(guest_id)
        except Exception as error:  # reported by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=live_and_die, args=(guest_id,)) for guest_id in guest_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert not {domain.uuid for domain in hypervisor.driver.domains()} & set(guest_ids)


def test_a_read_only_driver_sees_everything_hears_events_and_changes_nothing(hypervisor):
    watching = LibvirtDriver(hypervisor.uri, read_only=True)
    events = Events(watching)
    guest_id = hypervisor.defined()
    assert watching.domains() == hypervisor.driver.domains()
    hypervisor.driver.start(guest_id)
    events.wait_for(guest_id, EventKind.STARTED)
    with pytest.raises(DriverError, match="read only"):
        watching.destroy(guest_id)
    assert hypervisor.state(guest_id) is DomainState.RUNNING
    watching.close()


def test_a_closed_driver_refuses_and_tells_nothing(hypervisor):
    hypervisor.driver.close()
    hypervisor.driver.close()
    with pytest.raises(UnavailableError, match="closed"):
        hypervisor.driver.domains()
    with pytest.raises(UnavailableError):
        hypervisor.driver.define(hypervisor.spec(boot=DirectBoot("/k", "", "")))
    assert hypervisor.events.states == []
