"""One agent on libvirt's test driver for all contract tests: each uses guests and images of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lochness_lab.etcd import EtcdServer
from tests.contract.agent.agent_process import AgentProcess, leased_agent


@pytest.fixture(scope="session")
def agent(etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A running agent whose hypervisor holds its lease; shutdowns have 1 s.

    Its limit of requests is out of reach: the tests ask thousands, on a fast machine more than 200 a second.
    """
    directory = tmp_path_factory.mktemp("agent")
    with leased_agent(
        directory, etcd_server.url, shutdown_timeout_s=1, image_bytes_max=64 << 20, requests_burst=1_000_000
    ) as agent:
        yield agent
