"""A job is carried out exactly once in effect, whatever fails on the way: on memory, with an agent over HTTP.

`carry_out` is what the dispatcher does, one step at a time: a new worker may take the job up between any two steps.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lochness import keys
from lochness.agent_client import MistifyAgent
from lochness.clock import SystemClock
from lochness.context import Context
from lochness.errors import AmbiguousWriteError, UnavailableError
from lochness.ids import new_id
from lochness.invariants import check
from lochness.model.address import guest_mac
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.job import JobRecord
from lochness.model.network import NetworkRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.store.faults import FaultyStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Delete, Key, Prefix, Put
from lochness.transactions import create_guest, request_action
from lochness_controller.group_commit import GroupCommit
from lochness_controller.group_read import GroupRead
from lochness_controller.scheduler.shell import Scheduler
from lochness_controller.settings import ControllerSettings
from lochness_controller.workers.agent_calls import AgentCalls
from lochness_controller.workers.decide import KnownJob
from lochness_controller.workers.gates import Gates
from lochness_controller.workers.holding import HeldJob, StoreAwayError
from lochness_controller.workers.job_runner import JobRunner
from lochness_controller.workers.view import JobsView
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until

FLAVOR, NETWORK, SUBNET, IMAGE, HYPERVISOR, GUEST = (
    f"00000000-0000-4000-8000-00000000000{number}" for number in range(6)
)
SETTINGS = ControllerSettings(fetch_limit_s=3.0, create_limit_s=3.0, action_limit_s=3.0, delete_limit_s=3.0)


@pytest.fixture
def agent():
    with FakeAgent() as agent:
        yield agent


@pytest.fixture
def store(agent):
    store = MemoryStore()
    records = {
        keys.flavor(FLAVOR): FlavorRecord(id=FLAVOR, image=IMAGE, memory=128, disk=16, cpu=1).to_json(),
        keys.image(IMAGE): ImageRecord(id=IMAGE, source="file:///a").to_json(),
        keys.network(NETWORK): NetworkRecord(id=NETWORK).to_json(),
        keys.subnet(SUBNET): SubnetRecord(
            id=SUBNET, network=NETWORK, cidr="10.0.0.0/24", start="10.0.0.2", end="10.0.0.9"
        ).to_json(),
        keys.network_subnet(NETWORK, SUBNET): b"{}",
        keys.hypervisor(HYPERVISOR): HypervisorRecord(id=HYPERVISOR).operator_part(),
        keys.hypervisor_resources(HYPERVISOR): ResourcesRecord(
            total=Resources(memory=1024, disk=1024, cpu=8)
        ).to_json(),
        keys.hypervisor_heartbeat(HYPERVISOR): b"{}",
        keys.hypervisor_subnet(HYPERVISOR, SUBNET): b"br0",
        keys.hypervisor_config(HYPERVISOR, "agentUrl"): agent.url.encode(),
    }
    store.commit((), tuple(Put(key, value) for key, value in records.items()))
    return store


def ask_create(store) -> str:
    guest = GuestRecord(id=GUEST, flavor=FLAVOR, network=NETWORK, mac=guest_mac(GUEST))
    job = JobRecord(id=new_id(), guest=GUEST, action="select-hypervisor", request="create")
    create_guest(guest, job).commit(store)
    return job.id


def ask(store, action: str) -> str:
    item = store.read(Key(keys.guest(GUEST))).one()
    job = JobRecord(id=new_id(), guest=GUEST, action=action, request=action, hypervisor=HYPERVISOR)
    request_action(GUEST, item.mod_revision, job, None).commit(store)
    return job.id


def job_of(store, job_id: str) -> JobRecord:
    return JobRecord.from_json(store.read(Key(keys.job(job_id))).one().value)


def known_of(store, job_id: str) -> KnownJob:
    item = store.read(Key(keys.job(job_id))).one()
    return KnownJob(JobRecord.from_json(item.value), item.mod_revision, item.create_revision)


def take_up(store, truth, job_id: str, worker: str) -> None:
    """One go of a worker at the job, as the store has it now."""
    known = known_of(truth, job_id)
    if known.job.action == "select-hypervisor":
        view = JobsView()
        Scheduler(store, view, SystemClock(), worker=worker, workers_alive=lambda: {worker}).place([known])
    else:
        asyncio.run(run_job(store, known, worker))


async def run_job(store, known: KnownJob, worker: str) -> None:
    calls, gates = AgentCalls(timeout_s=2), Gates(lambda _hypervisor, _is_closed: None)
    runner = JobRunner(calls, gates, SETTINGS, SystemClock(), worker)
    with ThreadPoolExecutor(2) as threads:
        await runner.run(HeldJob(JobsView(), known, GroupRead(store, threads), GroupCommit(store, threads)))
    await calls.close()


def carry_out(store, truth, job_id: str) -> JobRecord:
    """Workers take the job up, each a new one, until it has ended."""
    for attempt in range(8):
        if job_of(truth, job_id).is_finished:
            break
        try:
            take_up(store, truth, job_id, f"worker-{attempt}")
        except (UnavailableError, StoreAwayError):
            continue
    return job_of(truth, job_id)


AWAY = (UnavailableError("away"), "before")
LOST = (AmbiguousWriteError("the answer was lost"), "after")
UNSENT = (AmbiguousWriteError("the answer was lost"), "before")


@pytest.mark.parametrize(("fault", "calls"), [(AWAY, "any"), (LOST, "commit"), (UNSENT, "commit")])
@pytest.mark.parametrize("job_kind", ["create", "reboot", "delete"])
def test_every_store_call_fails_once_and_the_job_ends_well(store, agent, job_kind, fault, calls):
    clean = live_once(store, agent, job_kind)
    assert len(clean) > 3
    numbers = [number for number, name in enumerate(clean, 1) if calls in ("any", name)]
    for number in numbers:
        live_once(store, agent, job_kind, number, fault)


def live_once(store, agent, job_kind, number=0, fault=AWAY) -> list[str]:
    """A job with one failing store call, then the guest's end; answers the names of the job's store calls."""
    job_id = ask_create(store)
    if job_kind != "create":
        assert carry_out(store, store, job_id).status == "done"
        job_id = ask(store, job_kind)
    asked_before = len(agent.requests)
    faulty = FaultyStore(store)
    if number:
        faulty.fail(number, fault[0], moment=fault[1])
    job = carry_out(faulty, store, job_id)
    assert job.status == "done", (number, job.error)
    assert check(store.read(Prefix(keys.ROOT)).ranges[0]) == (), number
    if job_kind == "reboot":
        assert len(agent.requests) - asked_before == 1, number
    if job_kind != "delete":
        assert set(agent.guests) == {GUEST}
        assert carry_out(store, store, ask(store, "delete")).status == "done"
    assert agent.guests == {}
    assert [item.key for item in store.read(Prefix(keys.ROOT)).ranges[0] if keys_of_guest(item.key)] == []
    return list(faulty.calls)


def keys_of_guest(key: str) -> bool:
    return GUEST in key and not key.startswith(keys.JOB_PATH)


def test_an_action_that_the_agent_took_is_not_asked_for_again(store, agent):
    assert carry_out(store, store, ask_create(store)).status == "done"
    job_id = ask(store, "reboot")
    # A controller claimed the job, the agent took the reboot, and the controller was killed before it could note so.
    item = store.read(Key(keys.job(job_id))).one()
    claimed = JobRecord.from_json(item.value).patched({"worker": "dead", "status": "working"})
    store.commit((), (Put(keys.job(job_id), claimed.to_json()),))
    with MistifyAgent(Context(store)) as client:
        remote = client.guest_action(GUEST, "reboot", request_id=job_id)
    job = carry_out(store, store, job_id)
    assert (job.status, job.remote) == ("done", remote)
    assert len(agent.asked("POST", "/reboot")) == 1


def writes_of(store, job_id: str, since: int) -> list[JobRecord]:
    """Every state of the job that was written, in order."""
    last = store.read(Key(keys.job(job_id))).revision
    watch = store.watch(keys.job(job_id), start_revision=since)
    states: list[JobRecord] = []
    try:
        while batch := watch.next(10):
            states += [JobRecord.from_json(change.value) for change in batch.changes if change.value]
            if batch.revision >= last:
                break
    finally:
        watch.close()
    return states


def test_what_the_agent_does_at_once_is_written_once(store, agent):
    since = store.read(Key("x")).revision + 1
    job_id = ask_create(store)
    assert carry_out(store, store, job_id).status == "done"
    assert [job.action for job in writes_of(store, job_id, since)] == [
        "select-hypervisor", "fetch", "fetch", "create", "create",
    ]  # fmt: skip
    assert job_of(store, job_id).remote


def test_what_takes_its_time_is_written_down_with_the_agents_job_before_it_ends(store, agent):
    agent.hold("create")
    job_id = ask_create(store)
    take_up(store, store, job_id, "first")
    worker = threading.Thread(target=take_up, args=(store, store, job_id, "first"))
    worker.start()
    try:
        wait_until(
            lambda: (job := job_of(store, job_id)).action == "create" and job.remote, limit_s=10, what="agent's job"
        )
        assert job_of(store, job_id).status == "working"
    finally:
        agent.release()
        worker.join(10)
    assert job_of(store, job_id).status == "done"


def test_a_reboot_is_written_down_with_the_agents_job_before_its_end_is_looked_for(store, agent):
    assert carry_out(store, store, ask_create(store)).status == "done"
    since = store.read(Key("x")).revision + 1
    job_id = ask(store, "reboot")
    assert carry_out(store, store, job_id).status == "done"
    states = [(job.status, bool(job.remote)) for job in writes_of(store, job_id, since)]
    assert states[-2:] == [("working", True), ("done", True)]


def test_a_job_that_the_agent_has_forgotten_is_asked_for_again(store, agent):
    agent.hold("create")
    job_id = ask_create(store)
    take_up(store, store, job_id, "first")
    worker = threading.Thread(target=take_up, args=(store, store, job_id, "second"))
    worker.start()
    wait_until(lambda: agent.asked("POST", "/guests"), limit_s=10, what="create at the agent")
    agent.forget_jobs()
    agent.release()
    worker.join(10)
    assert job_of(store, job_id).status == "done"
    assert len(agent.asked("POST", "/guests")) == 2


def test_a_create_that_the_agents_restart_interrupted_is_asked_for_again(store, agent):
    agent.fail_next("create", "interrupted by a restart of the agent", "interrupted")
    assert carry_out(store, store, ask_create(store)).status == "done"
    assert len(agent.asked("POST", "/guests")) == 2


def test_a_job_that_has_ended_meanwhile_is_left_as_it_is(store, agent):
    job_id = ask_create(store)
    assert carry_out(store, store, job_id).status == "done"
    before = store.read(Key(keys.job(job_id))).one()
    take_up(store, store, job_id, "another-worker")
    assert store.read(Key(keys.job(job_id))).one() == before


def test_a_reboot_that_was_interrupted_is_not_repeated(store, agent):
    assert carry_out(store, store, ask_create(store)).status == "done"
    agent.fail_next("reboot", "interrupted by a restart of the agent", "interrupted")
    job = carry_out(store, store, ask(store, "reboot"))
    assert (job.status, job.error) == ("error", "interrupted by a restart of the agent")
    assert len(agent.asked("POST", "/reboot")) == 1


def test_an_agent_that_is_away_for_a_while_is_waited_for(store, agent):
    agent.stop()
    job_id = ask_create(store)
    back = threading.Timer(0.5, agent.start)
    back.start()
    assert carry_out(store, store, job_id).status == "done"
    back.join()


def test_an_agent_that_stays_away_ends_the_job_with_the_limit(store, agent):
    assert carry_out(store, store, ask_create(store)).status == "done"
    agent.stop()
    words = f"delete on hypervisor {HYPERVISOR} has not ended within 3 s (delete_limit_s): the agent was not reached"
    job = carry_out(store, store, ask(store, "delete"))
    assert (job.status, job.reason) == ("error", "deadline_exceeded")
    assert job.error.startswith(words)
    assert job.error.endswith("nothing was released, delete it again later")
    assert store.read(Key(keys.hypervisor_guest(HYPERVISOR, GUEST))).one() is not None
    agent.start()
    assert carry_out(store, store, ask(store, "delete")).status == "done"


def test_a_guest_whose_hypervisor_is_not_registered_any_more_is_deleted_without_an_agent(store, agent):
    assert carry_out(store, store, ask_create(store)).status == "done"
    asked_before = len(agent.requests)
    store.commit((), (Delete(keys.hypervisor(HYPERVISOR)),))
    job = carry_out(store, store, ask(store, "delete"))
    assert job.status == "done"
    assert "is not registered any more" in job.steps[-1].message
    assert len(agent.requests) == asked_before
    assert [item.key for item in store.read(Prefix(keys.ROOT)).ranges[0] if GUEST in item.key] == []


def test_of_two_workers_on_one_job_one_goes_on(store, agent):
    assert carry_out(store, store, ask_create(store)).status == "done"
    agent.hold("reboot")
    job_id = ask(store, "reboot")
    known = known_of(store, job_id)  # to both it is nobody's yet
    workers = [
        threading.Thread(target=lambda name=name: asyncio.run(run_job(store, known, name))) for name in ("one", "two")
    ]
    for worker in workers:
        worker.start()
    wait_until(lambda: agent.asked("POST", "/reboot"), limit_s=10, what="reboot at the agent")
    agent.release()
    for worker in workers:
        worker.join(10)
    assert job_of(store, job_id).status == "done"
    assert len(agent.asked("POST", "/reboot")) == 1
