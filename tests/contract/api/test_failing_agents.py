"""What becomes of jobs when agents hang, fail, know little or talk nonsense, and of those that somebody cancels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.fleet import Fleet
from lochness import keys
from lochness.clock import SystemClock
from lochness.invariants import check
from lochness.jobs import request_cancel
from lochness.model.job import JobRecord
from lochness.store.protocol import Key, Prefix, Put
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until
from tests.contract.api.running import JOB_HEADER, Api, RunningController


@contextmanager
def running(etcd, **settings) -> Iterator[tuple[RunningController, Api]]:
    controller = RunningController(etcd.url, **settings)
    try:
        with Api(controller.url) as api:
            yield controller, api
    finally:
        controller.stop()


def created(api: Api, fleet: Fleet, count: int) -> list[dict]:
    """Guests that run."""
    answers = [api.post("/guests", json={"flavor": fleet.flavor, "network": fleet.network}) for _ in range(count)]
    assert [api.finished(answer)["status"] for answer in answers] == ["done"] * count
    return [api.get(f"/guests/{answer.json()['id']}").json() for answer in answers]


def job_of(store, answer) -> JobRecord:
    return JobRecord.from_json(store.read(Key(keys.job(answer.headers[JOB_HEADER]))).one().value)


def violations(store):
    return check(store.read(Prefix(keys.ROOT)).ranges[0])


def cancel(store, answer) -> None:
    request_cancel(store, answer.headers[JOB_HEADER], SystemClock().now())


def test_one_agent_that_hangs_delays_no_other(own_etcd):
    # So few places that the hanging one's jobs would take them all, were they counted.
    with (
        running(own_etcd, jobs_running=24, jobs_running_per_hypervisor=16, agent_timeout_s=0.5) as (controller, api),
        Fleet(controller.store, 21) as fleet,
    ):
        guests = created(api, fleet, 42)
        hanging = guests[0]["hypervisor"]
        fleet.agents[hanging].hang()
        stuck = [api.post(f"/guests/{guest['id']}/reboot") for guest in guests if guest["hypervisor"] == hanging] + [
            api.post(f"/guests/{guests[0]['id']}/{action}") for action in ("shutdown", "start")
        ]
        fine = [guest for guest in guests if guest["hypervisor"] != hanging]
        for _ in range(2):
            answers = [api.post(f"/guests/{guest['id']}/reboot") for guest in fine]
            assert [api.finished(answer)["status"] for answer in answers] == ["done"] * len(fine)
        assert not any(job_of(controller.store, answer).is_finished for answer in stuck)
        fleet.agents[hanging].recover()
        assert [api.finished(answer)["status"] for answer in stuck] == ["done"] * len(stuck)


def test_jobs_that_wait_for_an_agent_say_so_until_it_answers(own_etcd):
    with (
        running(own_etcd, agent_timeout_s=0.5) as (controller, api),
        Fleet(controller.store, 1) as fleet,
    ):
        (agent,) = fleet.agents.values()
        agent.power_off()
        # More than the one that asks: the others wait at the gate.
        answers = [api.post("/guests", json={"flavor": fleet.flavor, "network": fleet.network}) for _ in range(4)]
        told = "it is asked again until the step's limit of"
        wait_until(
            lambda: all(told in job_of(controller.store, answer).progress for answer in answers),
            limit_s=30,
            what="the reason in every job",
        )
        before = [job_of(controller.store, answer) for answer in answers]
        assert all("the agent did not answer" in job.progress and job.status == "working" for job in before)
        agent.power_on()
        jobs = [api.finished(answer) for answer in answers]
        assert [(job["status"], job["progress"]) for job in jobs] == [("done", "")] * 4


def test_a_create_that_fails_gives_back_what_it_claimed(cluster):
    cluster.agent.fail_next("create", "no space left on device")
    answer = cluster.create_guest()
    job = cluster.api.finished(answer)
    guest = answer.json()["id"]
    assert (job["status"], job["error"]) == ("error", "no space left on device")
    assert job["steps"][-1]["action"] == "undo"
    assert "were released" in job["steps"][-1]["message"]
    assert not any("/addresses/" in key or "/hypervisors/" in key for key in cluster.keys_with(guest))
    assert cluster.api.get(f"/guests/{guest}").json()["hypervisor"] == ""
    assert cluster.api.finished(cluster.api.delete(f"/guests/{guest}"))["status"] == "done"


def test_a_create_whose_agent_goes_away_says_what_is_left(own_etcd):
    with (
        running(own_etcd, create_limit_s=1.0, undo_limit_s=0.5, agent_timeout_s=0.5) as (controller, api),
        Fleet(controller.store, 1) as fleet,
    ):
        (hypervisor, agent), *_ = fleet.agents.items()
        agent.hold("create")
        answer = api.post("/guests", json={"flavor": fleet.flavor, "network": fleet.network})
        wait_until(lambda: agent.asked("POST", "/guests"), limit_s=10, what="create at the agent")
        agent.power_off()
        job = api.finished(answer)
        assert (job["status"], job["reason"]) == ("error", "deadline_exceeded")
        assert f"hypervisor {hypervisor} and address 10.0" in job["error"]
        assert job["error"].endswith("delete the guest to release them")
        guest = answer.json()["id"]
        assert controller.store.read(Key(keys.hypervisor_guest(hypervisor, guest))).one() is not None
        assert violations(controller.store) == ()
        agent.power_on()
        agent.release()
        assert api.finished(api.delete(f"/guests/{guest}"))["status"] == "done"
        assert agent.guests == {}


def test_a_forced_delete_releases_what_no_agent_confirms_and_says_so(own_etcd):
    with (
        running(own_etcd, force_limit_s=0.5, agent_timeout_s=0.5) as (controller, api),
        Fleet(controller.store, 1) as fleet,
    ):
        guest = created(api, fleet, 1)[0]
        fleet.cut(guest["hypervisor"])
        job = JobRecord(
            id="99999999-9999-4999-8999-999999999999",
            guest=guest["id"],
            action="delete",
            request="delete",
            hypervisor=guest["hypervisor"],
            force=True,
        )
        controller.store.commit((), (Put(keys.job(job.id), job.to_json()),))
        ended = api.job_end(job.id)
        assert ended["status"] == "done", ended
        assert f"the domain {guest['id']} and its disks may be left there" in ended["steps"][-1]["message"]
        assert api.get(f"/guests/{guest['id']}").status_code == 404
        assert violations(controller.store) == ()


def test_an_agent_that_speaks_no_more_than_it_must_is_enough(own_etcd):
    with running(own_etcd) as (controller, api), Fleet(controller.store, 2, minimal_every=1, job_s=0.2) as fleet:
        guests = created(api, fleet, 4)
        for verb in ("reboot", "shutdown", "start"):
            answers = [api.post(f"/guests/{guest['id']}/{verb}") for guest in guests]
            assert [api.finished(answer)["status"] for answer in answers] == ["done"] * 4
        answers = [api.delete(f"/guests/{guest['id']}") for guest in guests]
        assert [api.finished(answer)["status"] for answer in answers] == ["done"] * 4
        assert fleet.guests() == {}


def test_what_is_no_agent_ends_the_job_with_what_it_says(own_etcd):
    with (
        running(own_etcd, action_limit_s=1.0) as (controller, api),
        Fleet(controller.store, 1) as fleet,
    ):
        guest = created(api, fleet, 1)[0]
        agent = fleet.agents[guest["hypervisor"]]
        agent.hold("reboot")
        answer = api.post(f"/guests/{guest['id']}/reboot")
        wait_until(lambda: agent.asked("POST", "/reboot"), limit_s=10, what="reboot at the agent")
        agent.answers_garbage = True
        agent.release()
        second = api.post(f"/guests/{guest['id']}/shutdown")
        assert api.finished(answer)["status"] in ("done", "error")
        job = api.finished(second)
        assert job["status"] == "error"
        assert "without naming a job" in job["error"]


def test_a_create_is_cancelled_while_its_agent_works_and_leaves_nothing(cluster, controller):
    cluster.agent.hold("create")
    answer = cluster.create_guest()
    wait_until(lambda: job_of(controller.store, answer).remote, limit_s=10, what="create at the agent")
    wait_until(lambda: job_of(controller.store, answer).action == "create", limit_s=10, what="the step create")
    wait_until(lambda: cluster.agent.asked("POST", "/guests"), limit_s=10, what="create at the agent")
    cancel(controller.store, answer)
    wait_until(lambda: job_of(controller.store, answer).error, limit_s=10, what="the failure")
    cluster.agent.release()
    job = cluster.api.finished(answer)
    assert (job["status"], job["reason"]) == ("error", "cancelled")
    guest = answer.json()["id"]
    assert cluster.agent.guests == {}
    assert cluster.api.get(f"/guests/{guest}").json()["hypervisor"] == ""
    assert not any("/addresses/" in key for key in cluster.keys_with(guest))


def test_a_create_that_reaches_the_agent_after_its_undoing_leaves_nothing(cluster, controller):
    cluster.agent.hold("fetchImage")
    answer = cluster.create_guest()
    wait_until(lambda: cluster.agent.asked("POST", "/images"), limit_s=10, what="fetch at the agent")
    cluster.agent.put_off("guests", behind="delete")
    cluster.agent.release()
    wait_until(lambda: cluster.agent.asked("POST", "/guests"), limit_s=10, what="create on its way")
    cancel(controller.store, answer)
    job = cluster.api.finished(answer)
    assert (job["status"], job["reason"]) == ("error", "cancelled")
    assert cluster.agent.guests == {}
    guest = answer.json()["id"]
    assert cluster.api.get(f"/guests/{guest}").json()["hypervisor"] == ""
    assert not any("/addresses/" in key for key in cluster.keys_with(guest))


def test_an_action_is_cancelled_and_says_that_the_agent_goes_on(cluster, controller):
    guest = cluster.running_guest()
    cluster.agent.hold("reboot")
    answer = cluster.api.post(f"/guests/{guest['id']}/reboot")
    wait_until(lambda: job_of(controller.store, answer).remote, limit_s=10, what="reboot at the agent")
    cancel(controller.store, answer)
    job = cluster.api.finished(answer)
    assert (job["status"], job["reason"]) == ("error", "cancelled")
    assert "goes on with it by itself" in job["error"]


def test_a_job_in_the_line_is_cancelled_at_once(cluster, controller):
    guest = cluster.running_guest()
    cluster.agent.hold("reboot")
    first = cluster.api.post(f"/guests/{guest['id']}/reboot")
    second = cluster.api.post(f"/guests/{guest['id']}/shutdown")
    cancel(controller.store, second)
    job = cluster.api.finished(second)
    assert (job["status"], job["error"]) == ("error", "cancelled before shutdown was begun, as requested")
    cluster.agent.release()
    assert cluster.api.finished(first)["status"] == "done"
    assert cluster.agent.asked("POST", "/shutdown") == []


def test_a_job_that_is_not_begun_in_time_ends_and_says_why(own_etcd):
    with (
        running(own_etcd, jobs_running_per_hypervisor=1, line_limit_s=1.0) as (controller, api),
        Fleet(controller.store, 1) as fleet,
    ):
        one, other = created(api, fleet, 2)
        agent = fleet.agents[one["hypervisor"]]
        agent.hold("reboot")
        first = api.post(f"/guests/{one['id']}/reboot")
        second = api.post(f"/guests/{other['id']}/reboot")
        job = api.finished(second)
        assert (job["status"], job["reason"]) == ("error", "deadline_exceeded")
        assert "was not begun within 1 s (line_limit_s): 1 jobs are worked on" in job["error"]
        agent.release()
        assert api.finished(first)["status"] == "done"


@pytest.mark.parametrize("tells", [True, False])
def test_a_reboot_whose_answer_was_lost_is_not_asked_for_twice(own_etcd, tells):
    with (
        running(own_etcd, agent_timeout_s=0.5) as (controller, api),
        Fleet(controller.store, 1, minimal_every=0 if tells else 1) as fleet,
    ):
        guest = created(api, fleet, 1)[0]
        agent: FakeAgent = fleet.agents[guest["hypervisor"]]
        agent.hang()
        answer = api.post(f"/guests/{guest['id']}/reboot")
        wait_until(lambda: agent.asked("POST", "/reboot"), limit_s=10, what="reboot at the agent")
        agent.recover()
        job = api.finished(answer)
        assert len(agent.asked("POST", "/reboot")) == 1
        assert job["status"] == "done" or (not tells and job["reason"] == "outcome_unknown")
