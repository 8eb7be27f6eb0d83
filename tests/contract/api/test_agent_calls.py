"""What the workers' HTTP client makes of addresses that are none, of strangers, and of agents that do not answer."""

from __future__ import annotations

import asyncio

import pytest

from lochness.agent_targets import AgentRequest, AgentTarget
from lochness.errors import AgentJobError, AmbiguousWriteError, HTTPCodeError, UnavailableError
from lochness_controller.workers.agent_calls import AgentCalls
from lochness_lab.etcd import free_ports
from lochness_lab.fake_agent import FakeAgent

HOST = "11111111-1111-4111-8111-111111111111"


def asked(url: str, path: str = "/guests/g/reboot", timeout_s: float = 5.0) -> str:
    async def ask() -> str:
        calls = AgentCalls(timeout_s=timeout_s)
        try:
            return await calls.ask(AgentRequest(AgentTarget(HOST, url), path), "request")
        finally:
            await calls.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("url", ["", "http://", "ftp://127.0.0.1", "127.0.0.1:80", "http://[::1", "http://127.0.0.1:x"])
def test_an_address_that_is_none_says_so(url):
    with pytest.raises(UnavailableError, match="address is none"):
        asked(url)


def test_nobody_there_means_that_nothing_was_sent():
    with pytest.raises(UnavailableError, match="not reached"):
        asked(f"http://127.0.0.1:{free_ports(1)[0]}")


def test_no_answer_to_an_order_means_that_it_may_have_been_taken():
    with FakeAgent() as agent:
        agent.hang()
        with pytest.raises(AmbiguousWriteError, match="did not answer"):
            asked(agent.url, timeout_s=0.2)


def test_a_connection_that_is_closed_on_us_means_the_same():
    with FakeAgent() as agent:
        agent.put_off("reboot", behind="never")
        with pytest.raises(AmbiguousWriteError, match="did not answer"):
            asked(agent.url)


def test_an_agent_that_speaks_no_tls_is_not_reached():
    with FakeAgent() as agent, pytest.raises(UnavailableError, match="not reached"):
        asked(agent.url.replace("http:", "https:"))


def test_an_unknown_guest_and_a_stranger():
    with FakeAgent() as agent:
        with pytest.raises(HTTPCodeError, match="does not exist"):
            asked(agent.url)
        agent.answers_garbage = True
        with pytest.raises(AgentJobError, match="without naming a job"):
            asked(agent.url)
