"""How guests get their places when others place at the same time, and when the store fails (on memory)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lochness import keys
from lochness.clock import SystemClock
from lochness.errors import AmbiguousWriteError, UnavailableError
from lochness.ids import new_id
from lochness.invariants import check
from lochness.model.address import guest_mac
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import Binding, GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.job import JobRecord
from lochness.model.network import NetworkRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.placement.cluster import CLUSTER_SELECTORS, ClusterView, cluster_view
from lochness.store.faults import FaultyStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Delete, DeletePrefix, Key, Prefix, Put, Store, Watch, WatchBatch
from lochness.transactions import create_guest
from lochness_controller.scheduler.live import LiveCluster
from lochness_controller.scheduler.shell import Scheduler, UnsettledError
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.view import JobsView
from lochness_lab.waiting import wait_until

FLAVOR, NETWORK, SUBNET = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(3))

#: 128 puts and compares hold at least so many: each has four puts of its own, and up to five compares.
PER_TRANSACTION = 25


def make_store(hypervisors: int, room: int) -> MemoryStore:
    """Hypervisors with room for `room` guests each."""
    store = MemoryStore()
    puts = [
        Put(keys.flavor(FLAVOR), FlavorRecord(id=FLAVOR, image=FLAVOR, memory=100, disk=10, cpu=1).to_json()),
        Put(keys.network(NETWORK), NetworkRecord(id=NETWORK).to_json()),
        Put(
            keys.subnet(SUBNET),
            SubnetRecord(id=SUBNET, network=NETWORK, cidr="10.0.0.0/16", start="10.0.0.2", end="10.0.250.0").to_json(),
        ),
        Put(keys.network_subnet(NETWORK, SUBNET), b"{}"),
    ]
    for _ in range(hypervisors):
        id = new_id()
        total = ResourcesRecord(total=Resources(memory=100 * room, disk=10_000, cpu=1000))
        puts += [
            Put(keys.hypervisor(id), HypervisorRecord(id=id).operator_part()),
            Put(keys.hypervisor_resources(id), total.to_json()),
            Put(keys.hypervisor_heartbeat(id), b"{}"),
            Put(keys.hypervisor_subnet(id, SUBNET), b"br0"),
        ]
    for put in puts:
        store.commit((), (put,))
    return store


def add_guests(store, count: int) -> list[KnownJob]:
    known = []
    for _ in range(count):
        id = new_id()
        guest = GuestRecord(id=id, flavor=FLAVOR, network=NETWORK, mac=guest_mac(id))
        job = JobRecord(id=new_id(), guest=id, action="select-hypervisor", request="create")
        revision = create_guest(guest, job).commit(store)
        known.append(KnownJob(job, revision, revision))
    return known


def scheduler_on(store, worker: str = "me") -> Scheduler:
    return Scheduler(store, JobsView(), SystemClock(), worker=worker, workers_alive=lambda: {"me", "other"})


@contextmanager
def following(store) -> Iterator[Scheduler]:
    """A scheduler whose view of the cluster is current."""
    scheduler = scheduler_on(store)
    scheduler.start()
    try:
        wait_until(lambda: scheduler.live.is_current, limit_s=20, what="view of the cluster")
        yield scheduler
    finally:
        scheduler.stop()


def job_of(store, known: KnownJob) -> JobRecord:
    return JobRecord.from_json(store.read(Key(keys.job(known.job.id))).one().value)


def bindings(store) -> list[str]:
    items = store.read(Prefix(keys.HYPERVISOR_PATH, keys_only=True)).ranges[0]
    return [item.key for item in items if "/guests/" in item.key]


def test_many_guests_are_placed_in_one_transaction():
    store = make_store(hypervisors=5, room=20)
    batch = add_guests(store, 2 * PER_TRANSACTION)
    before = store.read(Prefix(keys.ROOT)).revision
    scheduler_on(store).place(batch)
    assert store.read(Prefix(keys.ROOT)).revision <= before + 4
    for known in batch:
        job = job_of(store, known)
        assert (job.action, job.status, job.worker) == ("fetch", "working", "me")
    assert len(bindings(store)) == 2 * PER_TRANSACTION
    assert check(store.read(Prefix(keys.ROOT)).ranges[0]) == ()


def test_those_who_find_no_room_fail_with_the_numbers_and_the_others_are_placed():
    store = make_store(hypervisors=2, room=3)
    batch = add_guests(store, 10)
    scheduler_on(store).place(batch)
    jobs = [job_of(store, known) for known in batch]
    assert [job.status for job in jobs].count("working") == 6
    refused = [job for job in jobs if job.status == "error"]
    assert len(refused) == 4
    assert "candidate_has_resources removed 2 of 2 (insufficient_memory: 2" in refused[0].error
    assert "wanted 100 MB, had 0 MB" in refused[0].error


def test_a_placement_by_another_in_between_is_decided_anew():
    store = make_store(hypervisors=1, room=3)
    batch = add_guests(store, 3)
    hypervisor = keys.object_id(store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0][0].key, keys.HYPERVISOR_PATH)[0]
    intruder = Put(keys.hypervisor_guest(hypervisor, new_id()), Binding(memory=100, disk=1, cpu=1).to_json())

    gone_ahead: list[bool] = []

    def intrude(number: int, name: str) -> None:
        if name == "commit" and not gone_ahead:  # after our first reading, before our commit
            gone_ahead.append(True)
            store.commit((), (intruder,))

    scheduler_on(FaultyStore(store, on_call=intrude)).place(batch)
    statuses = sorted(job_of(store, known).status for known in batch)
    assert statuses == ["error", "working", "working"]
    assert len(bindings(store)) == 3


def test_a_job_that_another_took_meanwhile_is_left_to_it():
    store = make_store(hypervisors=1, room=9)
    batch = add_guests(store, 3)
    theirs = batch[1].job.patched({"worker": "other", "status": "working"})
    store.commit((), (Put(keys.job(theirs.id), theirs.to_json()),))
    scheduler_on(store).place(batch)
    assert [job_of(store, known).worker for known in batch] == ["me", "other", "me"]
    assert len(bindings(store)) == 2


def test_a_job_that_ended_between_our_reading_and_our_commit_places_nobody():
    store = make_store(hypervisors=1, room=9)
    (known,) = add_guests(store, 1)
    ended = known.job.patched({"status": "error", "error": "ended by another"})

    gone_ahead: list[bool] = []

    def intrude(number: int, name: str) -> None:
        if name == "commit" and not gone_ahead:
            gone_ahead.append(True)
            store.commit((), (Put(keys.job(ended.id), ended.to_json()),))

    scheduler_on(FaultyStore(store, on_call=intrude)).place([known])
    assert job_of(store, known).error == "ended by another"
    assert bindings(store) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_whose_outcome_is_not_known_places_nobody_twice(moment):
    store = make_store(hypervisors=3, room=9)
    batch = add_guests(store, 5)
    faulty = FaultyStore(store)
    faulty.fail(3, AmbiguousWriteError("the answer was lost"), moment=moment)  # after two readings
    faulty.fail(4, UnavailableError("away"), moment=moment)
    scheduler = scheduler_on(faulty)
    try:
        scheduler.place(batch)
    except UnavailableError:
        scheduler.place(batch)
    assert [job_of(store, known).action for known in batch] == ["fetch"] * 5
    assert len(bindings(store)) == 5
    assert check(store.read(Prefix(keys.ROOT)).ranges[0]) == ()


def test_a_store_that_is_away_leaves_the_jobs_waiting():
    store = make_store(hypervisors=1, room=9)
    batch = add_guests(store, 2)
    faulty = FaultyStore(store)
    faulty.fail(1, UnavailableError("away"), moment="before")
    with pytest.raises(UnavailableError):
        scheduler_on(faulty).place(batch)
    assert [job_of(store, known).status for known in batch] == ["new", "new"]


def test_two_schedulers_on_the_same_jobs_place_every_guest_once():
    store = make_store(hypervisors=4, room=7)  # for 28 of 40
    known = add_guests(store, 40)
    batches = [known[start : start + 10] for start in range(0, 40, 10)]
    gate = threading.Barrier(2)

    def place(worker: str, order: list) -> None:
        scheduler = scheduler_on(store, worker)
        gate.wait()
        for batch in order:
            scheduler.place(batch)

    threads = [
        threading.Thread(target=place, args=("me", batches)),
        threading.Thread(target=place, args=("other", batches[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    jobs = [job_of(store, entry) for entry in known]
    assert [job.status for job in jobs].count("working") == 28
    assert [job.status for job in jobs].count("error") == 12
    assert len(bindings(store)) == 28
    assert check(store.read(Prefix(keys.ROOT)).ranges[0]) == ()


def test_a_guest_that_is_gone_or_unreadable_does_not_hold_up_the_others():
    store = make_store(hypervisors=1, room=9)
    batch = add_guests(store, 3)
    store.commit((), (Put(keys.guest(batch[1].job.guest), b"{"),))
    scheduler_on(store).place(batch)
    jobs = [job_of(store, known) for known in batch]
    assert [job.status for job in jobs] == ["working", "error", "working"]
    assert "can not be read" in jobs[1].error


def test_guests_of_a_group_that_are_placed_at_once_stay_apart():
    store = make_store(hypervisors=30, room=9)  # seldom do both choose the same one, which another compare sees
    put_into_rack(store, "r1")
    (known,) = add_guests(store, 1)
    item = store.read(Key(keys.guest(known.job.guest))).one()
    assert item is not None
    guest = GuestRecord.from_json(item.value).patched({"metadata": {"group": "web"}})
    store.commit((), (Put(item.key, guest.to_json()),))
    hypervisor = store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0][0].key.split("/")[2]
    binding = Binding(memory=100, disk=1, cpu=1, group="web").to_json()
    # Another controller places a guest of the group, with another address, after our reading and before our commit.
    theirs = (Put(keys.hypervisor_guest(hypervisor, new_id()), binding), Put(keys.group_placed("web"), b"{}"))
    gone_ahead: list[bool] = []

    def intrude(number: int, name: str) -> None:
        if name == "commit" and not gone_ahead:
            gone_ahead.append(True)
            store.commit((), theirs)

    faulty = FaultyStore(store, on_call=intrude)
    Scheduler(
        faulty, JobsView(), SystemClock(), worker="me", workers_alive=lambda: {"me", "other"}, domain="rack"
    ).place([known])
    assert len(bindings(store)) == 1
    assert "group_apart: rack r1 has 1 guest(s) of group 'web'" in job_of(store, known).error


def put_into_rack(store, rack: str) -> None:
    """All hypervisors."""
    for item in store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0]:
        if item.key.endswith("/metadata"):
            record = HypervisorRecord.from_json(item.value).patched({"metadata": {"rack": rack}})
            store.commit((), (Put(item.key, record.operator_part()),))


def test_a_refusal_on_a_followed_cluster_has_the_tally_of_every_hypervisor():
    store = make_store(hypervisors=3, room=1)
    with following(store) as scheduler:
        scheduler.place(add_guests(store, 3))
        (known,) = add_guests(store, 1)
        assert scheduler.live.has_seen(known.create_revision, limit_s=20), "the job itself tells how far the view is"
        scheduler.place([known])
    job = job_of(store, known)
    assert (job.status, job.reason) == ("error", "no_candidate")
    functions = {each["function"]: each for each in job.explanation["functions"]}
    assert functions["candidate_has_resources"]["considered"] == 3
    assert functions["candidate_has_resources"]["reasons"] == {"insufficient_memory": 3}
    assert len(functions["candidate_has_resources"]["nearest"]) == 3
    assert "insufficient_memory: wanted " in job.error


def test_guests_that_changed_after_the_watch_told_of_them_are_placed_as_they_are_now():
    store = make_store(hypervisors=4, room=9)
    with following(store) as scheduler:
        named, gone, removed, same = add_guests(store, 4)
        assert scheduler.live.has_seen(same.create_revision, limit_s=20)
    # A watch that is slow leaves a view that still has them so.
    stale = {known.job.guest: scheduler.live._new_guests[known.job.guest] for known in (named, gone, removed, same)}
    store.commit((), (DeletePrefix(keys.guest_prefix(gone.job.guest)),))
    store.commit((), (DeletePrefix(keys.guest_prefix(removed.job.guest)), Delete(keys.job(removed.job.id))))
    record = GuestRecord.from_json(stale[named.job.guest].value).with_fields(metadata={"name": "new"})
    store.commit((), (Put(keys.guest(named.job.guest), record.to_json()),))
    with following(store) as behind:
        behind.live._new_guests.update(stale)
        behind.place([named, gone, removed, same])
    item = store.read(Key(keys.guest(named.job.guest))).one()
    assert item is not None
    placed = GuestRecord.from_json(item.value)
    assert placed.is_placed
    assert placed.metadata == {"name": "new"}
    assert "does not exist any more" in job_of(store, gone).error
    assert store.read(Key(keys.job(removed.job.id))).one() is None
    assert job_of(store, same).action == "fetch"
    assert len(bindings(store)) == 2
    assert check(store.read(Prefix(keys.ROOT)).ranges[0]) == ()


def told_of(view: ClusterView) -> tuple[object, ...]:
    """What two views of the same cluster have in common, however they came about."""
    used = {id: (subnet.used, subnet.first, subnet.last, subnet.reserved) for id, subnet in view.subnets.items()}
    return view.revision, view.hypervisors, used, view.flavors, view.networks


class LateWatch:
    """A watch that brings nothing while `late` is set."""

    def __init__(self, watch: Watch, late: threading.Event) -> None:
        self._watch = watch
        self._late = late

    def next(self, timeout_s: float) -> WatchBatch | None:
        wait_until(lambda: not self._late.is_set(), limit_s=10, what="end of the lateness")
        return self._watch.next(min(timeout_s, 0.02))

    def close(self) -> None:
        self._watch.close()


class LateStore(FaultyStore):
    """Its watches can be late."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.late = threading.Event()

    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        return LateWatch(super().watch(prefix, start_revision=start_revision), self.late)


def test_nobody_is_refused_for_a_flavor_that_the_watch_brings_a_moment_later():
    store = LateStore(make_store(3, 4))
    with following(store) as scheduler:
        for _ in range(5):
            store.late.set()
            flavor = FlavorRecord(id=new_id(), image=FLAVOR, memory=1, disk=1, cpu=1)
            store.commit((), (Put(keys.flavor(flavor.id), flavor.to_json()),))
            guest = GuestRecord(id=(id := new_id()), flavor=flavor.id, network=NETWORK, mac=guest_mac(id))
            job = JobRecord(id=new_id(), guest=id, action="select-hypervisor", request="create")
            revision = create_guest(guest, job).commit(store)
            soon = threading.Timer(0.05, store.late.clear)  # while the refusal waits for the watch
            soon.start()
            known = KnownJob(job, revision, revision)
            scheduler.place([known])
            soon.join()
            assert (job_of(store, known).action, job_of(store, known).error) == ("fetch", "")


def test_nobody_is_refused_for_the_heartbeats_that_a_stores_standstill_has_ended():
    store = FaultyStore(make_store(3, 4))
    with following(store) as scheduler:
        items = store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0]
        beats = [item.key for item in items if item.key.endswith("/heartbeat")]
        store.drop_watches()
        store.commit((), [Delete(key) for key in beats])
        wait_until(lambda: scheduler.live.is_settling, limit_s=10, what="notice of the loss")
        wait_until(lambda: scheduler.live.is_current, limit_s=10, what="view of the cluster, anew")
        known = add_guests(store, 2)
        with pytest.raises(UnsettledError, match="2 guests find no place while heartbeats are missing"):
            scheduler.place(known)
        assert [job_of(store, each).status for each in known] == ["new", "new"]
        store.commit((), [Put(key, b"{}") for key in beats])
        wait_until(lambda: all(host.parts.is_alive for host in scheduler.live.fleet.usable()), limit_s=10, what="beats")
        scheduler.place(known)
        assert [job_of(store, each).action for each in known] == ["fetch", "fetch"]
        [full] = add_guests(store, 1)
        store.commit((), [Put(keys.flavor(FLAVOR), FlavorRecord(id=FLAVOR, memory=10**9, disk=1, cpu=1).to_json())])
        wait_until(lambda: scheduler.live.fleet.flavors[FLAVOR].memory == 10**9, limit_s=10, what="flavor")
        scheduler.place([full])
        assert job_of(store, full).reason == "no_candidate"  # not for want of a heartbeat


class UnwatchedStore(FaultyStore):
    """It can be read, and from a moment on not be watched."""

    is_unwatched = False

    def watch(self, prefix: str, *, start_revision: int) -> Watch:
        if self.is_unwatched:
            raise UnavailableError("no watch")
        return super().watch(prefix, start_revision=start_revision)


def test_a_watch_that_stays_away_keeps_nobody_waiting_for_heartbeats_for_ever():
    store = UnwatchedStore(make_store(1, 1))
    live = LiveCluster(store, settle_s=0.05)
    live.start()
    try:
        wait_until(lambda: live.is_current, limit_s=20, what="view of the cluster")
        store.is_unwatched = True
        store.drop_watches()
        wait_until(lambda: live.is_settling, limit_s=10, what="notice of the loss")
        live.reload()
        wait_until(lambda: not live.is_settling, limit_s=10, what="end of the wait")
        assert not live.is_current
    finally:
        live.stop()


def test_a_snapshot_is_as_new_as_the_question_and_stays_as_it_was():
    store = make_store(hypervisors=3, room=2)
    scheduler = scheduler_on(store)

    def snapshot() -> ClusterView:
        found = wait_until(scheduler.live.snapshot, limit_s=20, what="view that has come so far")
        assert found is not None
        assert found[0] == found[1].revision
        return found[1]

    assert scheduler.live.snapshot() is None, "nothing is known before the watch"
    scheduler.start()
    try:
        wait_until(lambda: scheduler.live.is_current, limit_s=20, what="view of the cluster")
        scheduler.place(add_guests(store, 2))
        view = snapshot()
        reading = store.read(*CLUSTER_SELECTORS)
        expected = told_of(cluster_view(reading.revision, reading.ranges))
        assert told_of(view) == expected
        scheduler.place(add_guests(store, 3))
        assert told_of(view) == expected
        assert snapshot().revision > view.revision
    finally:
        scheduler.stop()
