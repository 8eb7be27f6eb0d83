"""More than the controller takes is refused with 429 and when to come again; what is refused leaves nothing behind."""

from __future__ import annotations

import socket
from contextlib import closing

import httpx
import pytest

from lochness import keys
from lochness.store.protocol import Prefix
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, RunningController, make_cluster


class Running(RunningController):
    """`closing` ends it."""

    close = RunningController.stop


def test_a_full_line_of_jobs_takes_no_create_but_a_delete_and_takes_creates_again_later(own_etcd):
    with (
        closing(Running(own_etcd.url, jobs_unfinished_max=2)) as controller,
        FakeAgent() as agent,
        Api(controller.url) as api,
    ):
        cluster = make_cluster(api, controller.store, agent)
        guest = cluster.running_guest()
        agent.hold("create")
        waiting = [cluster.create_guest() for _ in range(2)]
        assert [answer.status_code for answer in waiting] == [202, 202]
        guests = controller.store.read(Prefix(keys.GUEST_PATH)).ranges[0]
        refused = cluster.create_guest()
        assert (refused.status_code, refused.json()["reason"]) == (429, "too_many_jobs")
        assert "jobs_unfinished_max 2" in refused.json()["message"]
        assert int(refused.headers["retry-after"]) > 0
        assert len(controller.store.read(Prefix(keys.GUEST_PATH)).ranges[0]) == len(guests)
        deletion = api.delete(f"/guests/{guest['id']}")
        assert deletion.status_code == 202
        agent.release()
        assert [api.finished(answer)["status"] for answer in (*waiting, deletion)] == ["done"] * 3
        wait_until(lambda: cluster.create_guest().status_code == 202, limit_s=20, what="a create that is taken")


def test_more_requests_than_are_answered_at_a_time_are_told_so_and_signs_of_life_are_not(own_etcd):
    with closing(Running(own_etcd.url, requests_max=1)) as controller, Api(controller.url) as api:
        assert api.get("/flavors").status_code == 200
        with socket.create_connection((api.base_url.host, api.base_url.port or 80), 20) as slow:
            slow.sendall(b"POST /networks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert slow.recv(100).startswith(b"HTTP/1.1 100")  # it is let in, and waited for

            def refused() -> httpx.Response | None:
                answer = api.get("/flavors")
                return answer if answer.status_code == 429 else None

            answer = wait_until(refused, limit_s=20, what="a refusal while another request is under way")
            assert answer is not None
            assert answer.json()["reason"] == "too_many_requests"
            assert int(answer.headers["retry-after"]) > 0
            assert api.get("/healthz").status_code == 200
            slow.sendall(b"{}")
            assert slow.recv(100).startswith(b"HTTP/1.1 201")
        wait_until(lambda: api.get("/flavors").status_code == 200, limit_s=20, what="requests that are answered again")


@pytest.mark.parametrize("header", ["", "Idempotency-Key: k1\r\n"])
def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_fault_of_ours(own_etcd, capfd, header):
    with closing(Running(own_etcd.url, requests_max=1)) as controller, Api(controller.url) as api:
        with socket.create_connection((api.base_url.host, api.base_url.port or 80), 20) as leaving:
            head = f"POST /networks HTTP/1.1\r\nHost: x\r\n{header}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            leaving.sendall(head.encode())
            assert leaving.recv(100).startswith(b"HTTP/1.1 100")
            leaving.sendall(b"{")
        wait_until(lambda: api.get("/flavors").status_code == 200, limit_s=20, what="the end of the request")
        assert api.get("/networks").json() == []
    logged = capfd.readouterr()
    for word in ("api.request_failed", "Traceback", "Exception"):
        assert word not in logged.out + logged.err
