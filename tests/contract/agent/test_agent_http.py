"""The conventions of the agent's HTTP API, and its jobs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lochness.identity import new_id
from tests.contract.agent.agent_process import AgentProcess
from tests.contract.agent.test_agent_images import WebServer, web

__all__ = ["web"]

UNSET = "0001-01-01T00:00:00Z"


def test_healthy(agent: AgentProcess) -> None:
    assert agent.get("/healthz").json() == {"status": "ok"}


#: No guest, job or image has it. Fixed: it stands in the names of tests.
NOBODY = "99999999-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("DELETE", "/guests", 405, "method_not_allowed"),
        ("GET", f"/guests/{NOBODY}", 404, "not_found"),
        ("GET", "/guests/x", 400, "invalid"),
        ("GET", "/guests/..%2f..%2fetc", 404, "not_found"),
        ("POST", f"/guests/{NOBODY}/start", 404, "not_found"),
        ("POST", f"/guests/{NOBODY}/explode", 404, "not_found"),
        ("POST", "/guests/x/delete", 400, "invalid"),
        ("GET", f"/jobs/{NOBODY}", 404, "not_found"),
        ("GET", "/jobs/x", 400, "invalid"),
        ("GET", f"/guests/{NOBODY}/jobs/{NOBODY}", 404, "not_found"),
        ("GET", "/jobs?limit=0", 400, "invalid"),
        ("GET", "/jobs?limit=many", 400, "invalid"),
        ("GET", f"/images/{NOBODY}", 404, "not_found"),
        ("DELETE", f"/images/{NOBODY}", 404, "not_found"),
        ("DELETE", "/images/x", 400, "invalid"),
    ],
)
def test_refusals_have_a_status_and_a_reason(
    agent: AgentProcess, method: str, path: str, status: int, reason: str
) -> None:
    answer = agent.http.request(method, agent.url + path)
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == status
    assert answer.json()["reason"] == reason
    assert answer.json()["message"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.text.endswith("}\n")


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"id":"x",}', b"[]", b"null", b'"x"', b"\xff\xfe", b"{} trailing", b"[" * 100_000]
)
@pytest.mark.parametrize("path", ["/guests", "/images"])
def test_malformed_bodies_are_refused(agent: AgentProcess, path: str, body: bytes) -> None:
    answer = agent.post(path, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["reason"] == "invalid"


def test_a_body_over_the_limit_is_refused(agent: AgentProcess) -> None:
    guest = agent.guest(new_id(), metadata={"x": "y" * (1 << 20)})
    answer = agent.post("/guests", guest)
    assert answer.status_code == 413
    assert answer.json()["reason"] == "body_too_large"


def test_unknown_fields_are_no_error_and_ids_are_read_in_any_spelling(agent: AgentProcess) -> None:
    guest = agent.guest(agent.with_image(), news={"of": "tomorrow"})
    agent.bind(guest["id"])
    agent.done(agent.post("/guests", {**guest, "id": guest["id"].upper()}))
    assert agent.get(f"/guests/{guest['id'].upper()}").json()["news"] == {"of": "tomorrow"}


def test_the_clients_request_id_is_in_the_answer_the_job_and_the_log(agent: AgentProcess) -> None:
    guest, id = agent.guest(agent.with_image()), f"request-{new_id()}"
    answer = agent.post("/guests", guest, **{"X-Request-ID": id})
    assert answer.headers["X-Request-ID"] == id
    job = agent.refused(answer)
    assert job["RequestID"] == id
    entries = [entry for entry in agent.logged("agent.job_failed") if entry["request_id"] == id]
    assert [(entry["job_id"], entry["guest_id"], entry["reason"]) for entry in entries] == [
        (job["ID"], guest["id"], "not_bound_here")
    ]


def test_a_request_id_that_is_not_usable_is_replaced(agent: AgentProcess) -> None:
    answer = agent.http.get(agent.url + "/jobs", headers={"X-Request-ID": "x" * 200})
    assert len(answer.headers["X-Request-ID"]) == 36


def test_jobs_are_listed_newest_first_and_by_guest(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    suspend = agent.done(agent.post(f"/guests/{guest['id']}/suspend"))
    resume = agent.done(agent.post(f"/guests/{guest['id']}/resume"))
    jobs = agent.get(f"/guests/{guest['id']}/jobs").json()
    assert [job["Action"] for job in jobs] == ["resume", "suspend", "create"]
    assert agent.get(f"/guests/{guest['id']}/jobs", limit="1").json() == [resume]
    assert agent.get("/jobs", limit="2").json() == [resume, suspend]
    assert agent.get(f"/guests/{guest['id']}/jobs/{suspend['ID']}").json() == suspend
    assert agent.get(f"/guests/{new_id()}/jobs/{suspend['ID']}").status_code == 404
    assert agent.get(f"/guests/{new_id()}/jobs").json() == []


def test_waiting_for_a_job_ends_with_the_job(agent: AgentProcess, web: WebServer) -> None:
    web.content = bytes(1 << 20)
    id = agent.post("/images", {"id": new_id(), "source": web.url}).headers["X-Guest-Job-ID"]
    began_s = time.monotonic()
    job = agent.get(f"/jobs/{id}", wait_s="0.3").json()
    assert job["Status"] == "Running"
    assert job["UpdatedAt"] != UNSET
    assert time.monotonic() - began_s >= 0.3
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(httpx.get, f"{agent.url}/jobs/{id}?wait_s=50", timeout=60) for _ in range(4)]
        agent.get(f"/jobs/{id}", wait_s="0.3")  # by now the four wait; if not, they ask a finished job
        web.release.set()
        released_s = time.monotonic()
        assert {each.result().json()["Status"] for each in waiting} == {"Complete"}
    assert time.monotonic() - released_s < 5


@pytest.mark.parametrize("wait_s", ["-1", "nan", "soon", ""])
def test_a_wait_that_is_no_time_is_refused(agent: AgentProcess, wait_s: str) -> None:
    id = agent.post(f"/guests/{new_id()}/delete").headers["X-Guest-Job-ID"]
    assert agent.get(f"/jobs/{id}", wait_s=wait_s).status_code == 400


def test_a_guests_jobs_run_one_after_the_other_and_guests_beside_each_other(agent: AgentProcess) -> None:
    # On the test driver a shutdown ends by itself at once; the lock of one guest is held from outside instead.
    from lochness_node.guest_lock import guest_lock

    held, other = agent.running_guest(), agent.running_guest()
    with guest_lock(agent.directory / "locks", held["id"], timeout_s=5):
        answers = [agent.post(f"/guests/{held['id']}/{action}") for action in ("suspend", "resume", "poweroff")]
        agent.done(agent.post(f"/guests/{other['id']}/suspend"))
        jobs = agent.get(f"/guests/{held['id']}/jobs").json()
        assert [job["Status"] for job in jobs] == ["Queued", "Queued", "Running", "Complete"]
        assert [job["StartedAt"] == UNSET for job in jobs] == [True, True, False, False]
        again = agent.post(f"/guests/{held['id']}/poweroff")
        assert again.headers["X-Guest-Job-ID"] == answers[-1].headers["X-Guest-Job-ID"]
    for answer in answers:
        agent.done(answer)
    assert agent.get(f"/guests/{held['id']}").json()["state"] == "stopped"


def test_many_creates_of_one_guest_at_a_time_are_one_job(agent: AgentProcess) -> None:
    guest = agent.guest(agent.with_image())
    agent.bind(guest["id"])
    barrier = threading.Barrier(8)

    def create(_: int) -> httpx.Response:
        barrier.wait(10)
        return agent.post("/guests", guest)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    jobs = [agent.done(answer) for answer in answers]
    made = [job for job in jobs if "is running (" in job["Message"]]
    assert len({job["ID"] for job in made}) == 1


def test_a_request_that_comes_again_is_done_once(agent: AgentProcess) -> None:
    guest, id = agent.running_guest(), f"request-{new_id()}"
    first = agent.post(f"/guests/{guest['id']}/restart", **{"X-Request-ID": id})
    agent.done(first)
    again = agent.post(f"/guests/{guest['id']}/restart", **{"X-Request-ID": id})
    assert again.headers["X-Guest-Job-ID"] == first.headers["X-Guest-Job-ID"]
    other = agent.post(f"/guests/{guest['id']}/restart")
    assert other.headers["X-Guest-Job-ID"] != first.headers["X-Guest-Job-ID"]
