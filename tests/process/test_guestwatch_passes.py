"""Guestwatch's passes one by one, on libvirt's test driver in this process, where the test can interfere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest

from lochness import keys
from lochness.errors import NotFoundError, UnavailableError
from lochness.identity import GuestID, new_id
from lochness.model.guest import Binding, GuestRecord, GuestStatus, PowerRecord
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Delete, DeletePrefix, Key, Put
from lochness_node.daemon import PassReport
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import (
    DiskSpec,
    Domain,
    DomainSpec,
    DomainState,
    Driver,
    EventCallback,
    EventKind,
)
from lochness_node.guestwatch.shell import Guestwatch
from lochness_node.settings import GuestwatchSettings
from tests.process.busy_store import BusyStore

HV = new_id()
URI = "test:///default"  # shared by all connections of this process


class LeavingDriver:
    """A driver whose libvirt can be away, and whose events come when the test says so. `looks` at all were made."""

    def __init__(self, driver: LibvirtDriver) -> None:
        self._driver = driver
        self.is_away = False
        self.looks = 0
        self._listeners: list[EventCallback] = []

    def domains(self) -> tuple[Domain, ...]:
        if self.is_away:
            raise UnavailableError("libvirt is away")
        self.looks += 1
        return self._driver.domains()

    def domain(self, guest_id: GuestID) -> Domain:
        if self.is_away:
            raise UnavailableError("libvirt is away")
        return self._driver.domain(guest_id)

    def on_event(self, callback: EventCallback) -> None:
        self._listeners.append(callback)

    def tell(self, guest_id: GuestID | None, kind: EventKind) -> None:
        for listener in self._listeners:
            listener(guest_id, kind)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


class World:
    """A store with our lease, a host, and guestwatch between them. The test moves the clock."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.now_s = 1000.0
        self.store = MemoryStore()
        self.libvirt = LibvirtDriver(URI)
        self.foreign = {domain.uuid for domain in self.libvirt.domains()}
        given = GuestwatchSettings(id=HV, libvirt=URI, lock_dir=str(directory), starts_max=2, **settings)
        self.others = BusyStore(self.store)
        self.driver = LeavingDriver(LibvirtDriver(URI))
        self.watch = Guestwatch(given, self.others.store, cast(Driver, self.driver), clock=self)
        record = HeartbeatRecord(host="hv").to_json()
        self.store.commit([], [Put(keys.hypervisor_heartbeat(HV), record, self.store.grant_lease(600))])

    def monotonic_s(self) -> float:
        return self.now_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    def close(self) -> None:
        self.watch.stop()
        for domain in self.libvirt.domains():
            if domain.uuid not in self.foreign:
                self.libvirt.undefine(GuestID(domain.uuid))
        self.libvirt.close()
        self.store.close()

    def register(self) -> None:
        self.store.commit([], [Put(keys.hypervisor(HV), HypervisorRecord(id=HV).operator_part())])

    def guest(
        self,
        *,
        power: str = "running",
        metadata: dict[str, str] | None = None,
        bound: bool = True,
        disks: tuple[DiskSpec, ...] = (),
    ) -> GuestID:
        """A guest that the agent has made: record, wish, binding, domain, switched off."""
        id = GuestID(new_id())
        revision = self.store.commit(
            [],
            [
                Put(keys.guest(id), GuestRecord(id=id, hypervisor=HV, metadata=metadata or {}).to_json()),
                Put(keys.guest_power(id), PowerRecord.from_fields({"desired": power}).to_json()),
                *([Put(keys.hypervisor_guest(HV, id), Binding().to_json())] if bound else []),
            ],
        )
        spec = DomainSpec(
            guest_id=id,
            binding_revision=revision,
            title="",
            memory_mb=32,
            vcpus=1,
            domain_type="test",
            disks=disks,
        )
        self.libvirt.define(spec)
        return id

    def look(self, after_s: float = 0.0) -> PassReport:
        self.now_s += after_s
        return self.watch.run_pass()

    def look_twice(self) -> None:
        self.look()
        self.look(after_s=3)
        self.look()

    def state(self, id: GuestID) -> DomainState:
        return self.libvirt.domain(id).state

    def status(self, id: str) -> GuestStatus | None:
        found = self.store.read(Key(keys.guest_status(id))).one()
        return GuestStatus.from_json(found.value) if found else None

    def shown(self, id: str) -> str:
        status = self.status(id)
        assert status is not None
        return status.state


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_a_guest_that_falls_is_shown_so_and_started_again(world):
    id = world.guest()
    world.look_twice()
    assert (world.state(id), world.shown(id)) == (DomainState.RUNNING, "running")
    world.libvirt.destroy(id)
    report = world.look(after_s=200)
    assert (world.state(id), world.shown(id)) == (DomainState.STOPPED, "stopped")
    assert report.look_again_s == pytest.approx(2.0)
    world.look_twice()
    assert (world.state(id), world.shown(id)) == (DomainState.RUNNING, "running")


def test_a_shutdown_is_not_fought(world):
    id = world.guest()
    world.look_twice()
    world.store.commit([], [Put(keys.guest_power(id), PowerRecord(desired="stopped").to_json())])
    world.libvirt.destroy(id)
    for _ in range(5):
        world.look(after_s=60)
    assert (world.state(id), world.shown(id)) == (DomainState.STOPPED, "stopped")


def test_a_wish_that_changes_after_the_decision_is_heeded(world):
    id = world.guest()
    world.look()
    world.others.meanwhile(2, Put(keys.guest_power(id), PowerRecord(desired="stopped").to_json()))
    world.look(after_s=3)
    assert world.state(id) is DomainState.STOPPED


def test_a_guest_that_was_deleted_after_the_reading_gets_no_status(world):
    id = world.guest(power="stopped")
    world.others.meanwhile(2, Delete(keys.guest(id)))
    world.look()
    assert world.status(id) is None


def test_a_guest_that_was_bound_anew_after_the_reading_gets_no_status_of_before(world):
    id = world.guest(power="stopped")
    world.others.meanwhile(2, Put(keys.hypervisor_guest(HV, id), Binding().to_json()))
    report = world.look()
    assert world.status(id) is None
    assert report.look_again_s is not None


def test_a_domain_of_an_earlier_binding_is_not_started(world):
    id = world.guest()
    world.store.commit([], [Put(keys.hypervisor_guest(HV, id), Binding().to_json())])
    world.look_twice()
    world.look(after_s=60)
    assert world.state(id) is DomainState.STOPPED
    status = world.status(id)
    assert status is not None
    assert "defined under binding revision" in status.reason


def test_without_a_binding_nothing_of_ours_is_touched(world):
    id = world.guest(bound=False)
    for _ in range(3):
        world.look(after_s=60)
    assert world.state(id) is DomainState.STOPPED
    assert world.status(id) is None


def test_foreign_domains_are_as_they_were(world):
    before = [domain for domain in world.libvirt.domains() if domain.uuid in world.foreign]
    world.guest()
    for _ in range(4):
        world.look(after_s=60)
    assert [domain for domain in world.libvirt.domains() if domain.uuid in world.foreign] == before


def test_a_foreign_domain_of_the_guests_name_is_told_and_left_alone(world):
    id = world.guest()
    world.libvirt.undefine(id)
    xml = f"<domain type='test'><name>{id}</name><memory>32768</memory><os><type>hvm</type></os></domain>"
    connection = libvirt.open(URI)
    theirs = connection.defineXML(xml)
    try:
        for _ in range(4):
            world.look(after_s=60)
        status = world.status(id)
        assert status is not None
        assert status.state == "missing"
        assert theirs.UUIDString() in status.reason
        assert not theirs.isActive()
        assert theirs.UUIDString() != id
    finally:
        theirs.undefine()
        connection.close()


def test_a_binding_whose_guest_is_gone_starts_nothing_and_gets_no_status(world):
    id = world.guest()
    world.store.commit([], [DeletePrefix(keys.guest_prefix(id))])
    for _ in range(4):
        world.look(after_s=60)
    assert world.state(id) is DomainState.STOPPED
    assert world.status(id) is None
    assert world.store.read(Key(keys.hypervisor_guest(HV, id))).one() is not None, "fsck's to mend, not ours"


def test_news_that_come_late_twice_or_for_nothing_change_nothing(world):
    id = world.guest()
    world.look_twice()
    world.libvirt.destroy(id)
    for _ in range(5):  # each event is a look
        world.look()
    assert (world.state(id), world.shown(id)) == (DomainState.STOPPED, "stopped"), "started too early"
    world.look(after_s=60)
    world.look()
    assert world.shown(id) == "running"
    revision = world.store.read(Key(keys.guest_status(id))).revision
    for _ in range(5):
        world.look()
    assert world.store.read(Key(keys.guest_status(id))).revision == revision, "something was written"


def test_a_domain_that_vanished_is_missing_and_not_made_again(world):
    id = world.guest()
    world.look_twice()
    world.libvirt.undefine(id)
    world.look_twice()
    status = world.status(id)
    assert status is not None
    assert (status.state, status.reason) == ("missing", "the domain is gone")
    with pytest.raises(NotFoundError):
        world.libvirt.domain(id)


def test_one_unreadable_record_does_not_stop_the_others(world):
    bad, good = world.guest(), world.guest()
    world.store.commit([], [Put(keys.guest_power(bad), b"{nonsense")])
    world.look_twice()
    assert (world.shown(bad), world.shown(good)) == ("stopped", "running")


def test_a_libvirt_that_is_gone_changes_no_status_and_is_asked_again_soon(world):
    id = world.guest(power="stopped")
    world.look()
    revision = world.store.read(Key(keys.guest_status(id))).revision
    world.driver.is_away = True
    report = world.look(after_s=60)
    assert world.store.read(Key(keys.guest_status(id))).revision == revision
    assert (report.look_again_s or 99) <= 2
    world.driver.is_away = False
    world.look()
    assert world.shown(id) == "stopped"


def test_a_hundred_guests_are_read_at_one_revision(world):
    ids = [world.guest(power="stopped") for _ in range(100)]
    report = world.look()
    assert {world.shown(id) for id in ids} == {"stopped"}
    assert report.status == "100 guests: 100 stopped"


def test_a_guest_that_was_paused_by_hand_is_resumed(world):
    id = world.guest()
    world.look_twice()
    world.libvirt.suspend(id)
    world.look(after_s=200)
    assert world.shown(id) == "paused"
    world.look_twice()
    assert (world.state(id), world.shown(id)) == (DomainState.RUNNING, "running")


def test_the_restart_policy_in_the_guests_metadata_is_kept(world):
    never, always = world.guest(metadata={"restart": "never"}), world.guest(metadata={"restart": "always"})
    world.look_twice()
    assert (world.state(never), world.state(always)) == (DomainState.STOPPED, DomainState.RUNNING)
    status = world.status(never)
    assert status is not None
    assert "restart policy never" in status.reason


def test_a_restart_policy_that_is_none_is_said_and_the_configured_one_used(world):
    id = world.guest(metadata={"restart": "sometimes", "boot_order": "first"})
    world.look_twice()
    assert world.state(id) is DomainState.RUNNING


def test_guests_come_up_in_the_order_of_their_metadata(world):
    last, first = world.guest(metadata={"boot_order": "9"}), world.guest(metadata={"boot_order": "1"})
    others = [world.guest(metadata={"boot_order": "5"}) for _ in range(4)]
    world.look()
    world.look(after_s=2)
    running = [id for id in (last, first, *others) if world.state(id) is DomainState.RUNNING]
    assert (len(running), first in running, last in running) == (4, True, False)
    world.look(after_s=2)
    assert world.state(last) is DomainState.RUNNING


def test_without_a_lease_the_order_is_kept_until_there_is_one(world):
    lease = world.store.read(Key(keys.hypervisor_heartbeat(HV))).one()
    assert lease is not None
    world.store.commit([], [Delete(keys.hypervisor_heartbeat(HV))])
    late = [world.guest(metadata={"boot_order": "5"}) for _ in range(6)]
    first = world.guest(metadata={"boot_order": "1"})
    world.look()
    world.look(after_s=2)
    world.look(after_s=0.1)
    assert {world.state(id) for id in (first, *late)} == {DomainState.STOPPED}
    world.store.commit([], [Put(keys.hypervisor_heartbeat(HV), lease.value, lease.lease_id)])
    world.look(after_s=1)
    world.look(after_s=5)
    assert world.state(first) is DomainState.RUNNING


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, unbound="stop", unwanted="stop", unwanted_after_s=30.0, stop_grace_s=10.0)
    world.register()
    yield world
    world.close()


def test_strays_are_stopped_when_the_configuration_says_so_and_keep_their_definition(strict):
    unbound = strict.guest(bound=False)
    unwanted = strict.guest(power="stopped")
    wanted = strict.guest()
    for id in (unbound, unwanted):
        strict.libvirt.start(id)
    strict.look_twice()
    assert strict.state(unbound) is DomainState.STOPPED
    assert strict.state(unwanted) is DomainState.RUNNING
    strict.look(after_s=30)
    assert strict.state(unwanted) is DomainState.STOPPED
    assert strict.state(wanted) is DomainState.RUNNING


def test_a_guest_that_is_bound_or_wanted_after_the_decision_is_not_stopped(strict):
    unbound, unwanted = strict.guest(bound=False), strict.guest(power="stopped")
    for id in (unbound, unwanted):
        strict.libvirt.start(id)
    strict.look()
    strict.others.meanwhile(
        2,
        Put(keys.hypervisor_guest(HV, unbound), Binding().to_json()),
        Put(keys.guest_power(unwanted), PowerRecord(desired="running").to_json()),
    )
    strict.look(after_s=40)
    assert {strict.state(id) for id in (unbound, unwanted)} == {DomainState.RUNNING}


def test_an_emptied_or_older_store_stops_nothing(strict):
    id = strict.guest()
    strict.look_twice()
    strict.store.commit([], [DeletePrefix(keys.ROOT)])
    for _ in range(4):
        strict.look(after_s=60)
    assert strict.state(id) is DomainState.RUNNING
    strict.register()
    strict.libvirt.define(
        DomainSpec(guest_id=id, binding_revision=10**6, title="", memory_mb=32, vcpus=1, domain_type="test")
    )
    strict.libvirt.destroy(id)
    strict.libvirt.start(id)
    for _ in range(4):
        strict.look(after_s=60)
    assert strict.state(id) is DomainState.RUNNING


def test_an_event_makes_it_look_at_the_guest_it_names(world):
    one, *others = [world.guest(power="stopped") for _ in range(4)]
    world.look()
    looks = world.driver.looks
    for id in (one, others[0]):
        world.libvirt.start(id)
    world.driver.tell(one, EventKind.STARTED)
    world.look()
    assert (world.shown(one), world.shown(others[0])) == ("running", "stopped")
    assert world.driver.looks == looks
    world.look()  # nothing names a guest: it looks at all, and finds what no event told of
    assert world.shown(others[0]) == "running"
    assert world.driver.looks == looks + 1


def test_with_events_all_the_time_it_still_looks_at_all(world):
    one, other, *_ = [world.guest(power="stopped") for _ in range(4)]
    world.look()
    world.libvirt.start(other)
    for _ in range(7):  # of 4 s each, in an interval of 30
        world.driver.tell(one, EventKind.RESUMED)
        world.look(after_s=4)
    assert world.shown(other) == "running"


def test_after_lost_events_it_looks_at_all(world):
    one, other, *_ = [world.guest(power="stopped") for _ in range(4)]
    world.look()
    world.libvirt.start(other)
    world.driver.tell(one, EventKind.RESUMED)
    world.driver.tell(None, EventKind.RESYNC)
    world.look()
    assert world.shown(other) == "running"


def test_a_named_guest_that_has_no_domain_any_more_is_missing(world):
    one, *_ = [world.guest(power="stopped") for _ in range(4)]
    world.look()
    world.libvirt.undefine(one)
    world.driver.tell(one, EventKind.UNDEFINED)
    world.look()
    assert world.shown(one) == "missing"


def test_a_look_that_failed_is_made_again_at_all(world):
    one, other, *_ = [world.guest(power="stopped") for _ in range(4)]
    world.look()
    world.libvirt.start(other)
    world.driver.tell(one, EventKind.RESUMED)
    world.driver.is_away = True
    world.look()
    world.driver.is_away = False
    world.driver.tell(one, EventKind.RESUMED)
    world.look()
    assert world.shown(other) == "running"
