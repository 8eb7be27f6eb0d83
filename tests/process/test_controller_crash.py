"""A controller is killed at any step, or two run at once: every job ends, every guest has one place."""

from __future__ import annotations

import random
from functools import partial

import pytest

from lochness import keys
from lochness.store.connect import open_store
from lochness.store.protocol import Prefix
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, make_cluster
from tests.process.controller_process import ControllerProcess


@pytest.fixture
def agent():
    with FakeAgent() as agent:
        yield agent


@pytest.fixture
def store(own_etcd):
    with open_store(own_etcd.url) as store:
        yield store


def has_asked(agent: FakeAgent, count: int) -> bool:
    return len(agent.requests) >= count


def bound_guests(store) -> list[str]:
    items = store.read(Prefix(keys.HYPERVISOR_PATH, keys_only=True)).ranges[0]
    return sorted(keys.last_part(item.key) for item in items if "/guests/" in item.key)


@pytest.mark.parametrize(("held", "asked"), [("fetchImage", "/images"), ("create", "/guests")])
def test_killed_while_the_agent_works_the_next_one_goes_on(own_etcd, store, agent, tmp_path, held, asked):
    with ControllerProcess(tmp_path / "controller", own_etcd.url) as controller:
        controller.wait_ready()
        with Api(controller.urls[0]) as api:
            cluster = make_cluster(api, store, agent)
            agent.hold(held)
            answer = cluster.create_guest()
            path = f"/jobs/{answer.headers['X-Guest-Job-ID']}"
            wait_until(lambda: agent.asked("POST", asked), limit_s=10, what=f"{held} at the agent")
            wait_until(lambda: api.get(path).json()["remote"], limit_s=10, what="the agent's job noted")
        controller.running.kill()
        controller.start()
        agent.release()
        with Api(controller.urls[0]) as api:
            assert api.finished(answer)["status"] == "done"
            guest = api.get(f"/guests/{answer.json()['id']}").json()
            assert agent.guests[guest["id"]]["state"] == "running"
            assert len(agent.asked("POST", asked)) == 1
            # A delete that is killed in the middle ends as well, and leaves nothing.
            agent.hold("delete")
            deletion = api.delete(f"/guests/{guest['id']}")
            wait_until(lambda: agent.asked("POST", "/delete"), limit_s=10, what="delete at the agent")
        controller.running.kill()
        controller.start()
        agent.release()
        with Api(controller.urls[0]) as api:
            assert api.finished(deletion)["status"] == "done"
        assert agent.guests == {}
        assert cluster.keys_with(guest["id"]) == []
        assert cluster.violations() == ()


@pytest.mark.timeout(120)
def test_killed_at_any_moment_every_job_ends_and_no_guest_is_lost_or_doubled(own_etcd, store, agent, tmp_path):
    with ControllerProcess(tmp_path / "controller", own_etcd.url) as controller:
        controller.wait_ready()
        with Api(controller.urls[0]) as api:
            cluster = make_cluster(api, store, agent, memory=100_000, cpu=100)
        answers = []
        for _ in range(5):
            with Api(controller.urls[0]) as api:
                creation = {"flavor": cluster.flavor, "network": cluster.network}
                # Six creates ask the agent twelve times at least: any moment of that, counted from before the first.
                enough = len(agent.requests) + random.randrange(0, 12)
                answers += [api.post("/guests", json=creation) for _ in range(6)]
                wait_until(partial(has_asked, agent, enough), limit_s=10, what="some requests at the agent")
            controller.running.kill()
            controller.start()
        with Api(controller.urls[0]) as api:
            ends = [api.finished(answer) for answer in answers]
        assert [job["status"] for job in ends] == ["done"] * len(answers), [job.get("error") for job in ends]
        guests = sorted(answer.json()["id"] for answer in answers)
        assert bound_guests(store) == guests
        assert sorted(agent.guests) == guests
        assert cluster.violations() == ()


@pytest.mark.timeout(120)
def test_two_controllers_at_once_and_one_is_killed(own_etcd, store, agent, tmp_path):
    with (
        ControllerProcess(tmp_path / "one", own_etcd.url) as one,
        ControllerProcess(tmp_path / "two", own_etcd.url) as two,
    ):
        one.wait_ready()
        two.wait_ready()
        with Api(one.urls[0]) as first, Api(two.urls[0]) as second:
            cluster = make_cluster(second, store, agent, memory=512 * 25, cpu=100)
            creation = {"flavor": cluster.flavor, "network": cluster.network}
            answers = [api.post("/guests", json=creation) for _ in range(20) for api in (first, second)]
            wait_until(lambda: len(agent.requests) > 5, limit_s=10, what="work at the agent")
            one.running.kill()
            ends = [second.finished(answer)["status"] for answer in answers]
        assert ends.count("done") == 25
        assert ends.count("error") == 15
        assert len(bound_guests(store)) == 25
        assert sorted(agent.guests) == bound_guests(store)
        assert cluster.violations() == ()
