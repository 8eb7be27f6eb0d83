"""etcd is emptied, or restored from a backup, under a running controller: it goes by what is there now."""

from __future__ import annotations

import shutil

import pytest

from lochness.store.connect import open_store
from lochness_lab.etcd import EtcdServer
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, make_cluster
from tests.contract.api.test_events import Events, following
from tests.process.controller_process import ControllerProcess, wait_logged


@pytest.fixture
def agent():
    with FakeAgent() as agent:
        yield agent


@pytest.fixture
def store(own_etcd):
    with open_store(own_etcd.url) as store:
        yield store


def back_up(etcd: EtcdServer) -> None:
    """As an administrator who copies the stopped etcd's directory."""
    etcd.stop()
    shutil.copytree(etcd.directory / "data", etcd.directory / "backup")
    etcd.start()


def restore(etcd: EtcdServer) -> None:
    """The backup in place of what is there; without a backup nothing is in its place."""
    etcd.stop()
    etcd.remove_data()
    if (etcd.directory / "backup").exists():
        shutil.copytree(etcd.directory / "backup", etcd.directory / "data")
    etcd.start()


def wait_for_store(api: Api) -> None:
    wait_until(lambda: api.get("/config").status_code == 200, limit_s=30, what="the store at the controller")


def ids(api: Api, path: str) -> set[str]:
    return {record["id"] for record in api.get(path).json()}


def read_on(events: Events) -> None:
    while True:
        events.next()


@pytest.mark.timeout(120)
def test_restored_from_a_backup_jobs_go_on_from_there_and_what_came_later_is_no_more(own_etcd, store, agent, tmp_path):
    with ControllerProcess(tmp_path / "controller", own_etcd.url) as controller, Api(controller.urls[0]) as api:
        controller.wait_ready()
        cluster = make_cluster(api, store, agent)
        kept = cluster.running_guest()
        agent.hold("create")
        halfway = cluster.create_guest()
        job = f"/jobs/{halfway.headers['X-Guest-Job-ID']}"
        wait_until(lambda: api.get(job).json()["remote"], limit_s=20, what="the agent's job noted")
        back_up(own_etcd)
        wait_for_store(api)
        agent.release()
        assert api.finished(halfway)["status"] == "done"
        later = cluster.create_guest()
        assert api.finished(later)["status"] == "done"
        assert api.finished(api.delete(f"/guests/{kept['id']}"))["status"] == "done"
        asked = len(agent.asked("POST", "/guests"))
        with following(controller.urls[0], kind="guest") as events:
            events.next()
            restore(own_etcd)
            wait_for_store(api)
            # What is listed at once is what the store says now, and nothing of before.
            assert ids(api, "/guests") == {kept["id"], halfway.json()["id"]}
            with pytest.raises(AssertionError, match="the stream has ended"):
                read_on(events)  # what it told is not so any more
        # The job that was under way then is under way again, and comes to its end.
        assert api.get(job).status_code == 200
        assert api.finished(halfway)["status"] == "done"
        assert api.get(f"/jobs/{later.headers['X-Guest-Job-ID']}").status_code == 404
        assert len(agent.asked("POST", "/guests")) <= asked + 1  # the create of the job that goes on, and no other
        assert agent.guests.keys() == {halfway.json()["id"], later.json()["id"]}
        new = cluster.running_guest()
        assert ids(api, "/guests") == {kept["id"], halfway.json()["id"], new["id"]}
        assert cluster.violations() == ()
        assert not controller.logged("daemon.pass_failed")


@pytest.mark.timeout(120)
def test_emptied_it_shows_nothing_touches_no_guest_and_takes_a_new_cluster(own_etcd, store, agent, tmp_path):
    with ControllerProcess(tmp_path / "controller", own_etcd.url) as controller, Api(controller.urls[0]) as api:
        controller.wait_ready()
        cluster = make_cluster(api, store, agent)
        guest = cluster.running_guest()
        agent.hold("create")
        cluster.create_guest()
        wait_until(lambda: len(agent.asked("POST", "/guests")) == 2, limit_s=20, what="the second create at the agent")
        restore(own_etcd)
        wait_for_store(api)
        for path in ("/guests", "/jobs", "/hypervisors", "/flavors", "/networks"):
            assert api.get(path).json() == []
        agent.release()
        wait_logged(controller, "job.lost")
        again = make_cluster(api, store, agent)
        new = again.running_guest()
        assert ids(api, "/guests") == {new["id"]}
        assert guest["id"] in agent.guests
        assert not [each for each in agent.requests if each.path.endswith("/delete")]
        assert again.violations() == ()
        assert not controller.logged("daemon.pass_failed")
