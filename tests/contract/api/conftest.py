"""One controller on one etcd for all tests here; each test makes objects of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lochness_lab.etcd import EtcdServer
from lochness_lab.fake_agent import FakeAgent
from tests.contract.api.running import Api, Cluster, RunningController, make_cluster


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningController]:
    """A controller and its etcd, which nobody else uses."""
    with EtcdServer(tmp_path_factory.mktemp("api-etcd")) as etcd:
        running = RunningController(etcd.url)
        yield running
        running.stop()


@pytest.fixture
def api(controller: RunningController) -> Iterator[Api]:
    with Api(controller.url) as client:
        yield client


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    with FakeAgent() as agent:
        yield agent


@pytest.fixture
def cluster(api: Api, controller: RunningController, agent: FakeAgent) -> Cluster:
    return make_cluster(api, controller.store, agent)
