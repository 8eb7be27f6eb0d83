"""WIRE.md section 3: /jobs."""

from __future__ import annotations

import threading
import time

from lochness_lab.waiting import wait_until

UNSET = "0001-01-01T00:00:00Z"


def test_a_job_is_read_any_number_of_times_while_it_runs_and_after(cluster):
    cluster.agent.hold("create")
    answer = cluster.create_guest()
    path = f"/jobs/{answer.headers['X-Guest-Job-ID']}"

    def is_creating() -> bool:
        job = cluster.api.get(path).json()
        return job["action"] == "create" and bool(job["remote"])

    wait_until(is_creating, limit_s=10, what="create at the agent")
    for _ in range(2):
        job = cluster.api.get(path).json()
        assert list(job)[:7] == ["id", "remote", "action", "guest", "status", "started_at", "finished_at"]
        assert (job["status"], job["finished_at"]) == ("working", UNSET)
        assert job["started_at"] != UNSET
        assert job["guest"] == answer.json()["id"]
    cluster.agent.release()
    end = cluster.api.finished(answer)
    assert end["status"] == "done"
    assert end["started_at"] < end["finished_at"]
    assert cluster.api.get(path).json() == end


def test_a_failed_job_has_its_error_behind_the_guest(cluster):
    cluster.agent.fail_next("create", "no space left on device")
    job = cluster.api.finished(cluster.create_guest())
    assert list(job)[:8] == ["id", "remote", "action", "guest", "error", "status", "started_at", "finished_at"]
    assert (job["status"], job["error"]) == ("error", "no space left on device")


def test_a_wait_ends_when_the_job_changes(cluster):
    cluster.agent.hold("create")
    answer = cluster.create_guest()
    path = f"/jobs/{answer.headers['X-Guest-Job-ID']}"
    wait_until(lambda: cluster.api.get(path).json()["remote"] and cluster.agent.asked("POST", "/guests"), limit_s=10,
               what="create at the agent")  # fmt: skip
    wait_until(lambda: cluster.api.get(path).json()["action"] == "create", limit_s=10, what="create")
    started_s = time.monotonic()
    releaser = threading.Timer(0.3, cluster.agent.release)
    releaser.start()
    cluster.api.job_end(answer.headers["X-Guest-Job-ID"])
    releaser.join()
    assert 0.2 < time.monotonic() - started_s < 4


def test_a_wait_that_sees_no_change_ends_after_its_time(cluster):
    cluster.agent.hold("fetchImage")
    answer = cluster.create_guest()
    path = f"/jobs/{answer.headers['X-Guest-Job-ID']}"
    wait_until(lambda: cluster.api.get(path).json()["remote"], limit_s=10, what="fetch at the agent")
    started_s = time.monotonic()
    assert cluster.api.get(path, params={"wait_s": "0.5"}).json()["status"] == "working"
    assert 0.4 < time.monotonic() - started_s < 3
    cluster.agent.release()
    cluster.api.finished(answer)


def test_a_wait_must_be_a_number_of_seconds(cluster):
    job_id = cluster.create_guest().headers["X-Guest-Job-ID"]
    for wrong in ("soon", "-1", "nan", "inf"):
        answer = cluster.api.get(f"/jobs/{job_id}", params={"wait_s": wrong})
        assert answer.status_code == 400, wrong
        assert "wait_s" in answer.json()["message"]


def test_jobs_are_listed_newest_first_by_guest_and_bounded(cluster):
    guest = cluster.running_guest()
    other = cluster.running_guest()
    for action in ("shutdown", "start"):
        cluster.api.finished(cluster.api.post(f"/guests/{guest['id']}/{action}"))
    listed = cluster.api.get("/jobs", params={"guest": guest["id"].upper()}).json()
    assert [job["request"] for job in listed] == ["start", "shutdown", "create"]
    newest = cluster.api.get("/jobs", params={"limit": "1"}).json()
    assert [job["request"] for job in newest] == ["start"]
    assert any(job["guest"] == other["id"] for job in cluster.api.get("/jobs").json())
    for wrong in ("0", "-1", "many"):
        assert cluster.api.get("/jobs", params={"limit": wrong}).status_code == 400


def test_jobs_of_one_guest_run_one_after_the_other_in_the_order_they_came(cluster):
    cluster.agent.hold("create")
    answers = [cluster.create_guest()]
    guest_id = answers[0].json()["id"]
    answers += [cluster.api.post(f"/guests/{guest_id}/{action}") for action in ("suspend", "resume", "reboot")]
    cluster.agent.release()
    assert [cluster.api.finished(answer)["status"] for answer in answers] == ["done"] * 4
    paths = [asked.path.rpartition("/")[2] for asked in cluster.agent.requests]
    assert paths == ["images", "guests", "suspend", "resume", "reboot"]


def test_a_job_is_cancelled_on_request_and_a_finished_one_is_not(cluster):
    cluster.agent.hold("create")
    answer = cluster.create_guest()
    path = f"/jobs/{answer.headers['X-Guest-Job-ID']}"
    wait_until(lambda: cluster.agent.asked("POST", "/guests"), limit_s=10, what="create at the agent")
    asked = cluster.api.post(f"{path}/cancel")
    assert asked.status_code == 202
    assert asked.headers["X-Guest-Job-ID"] == asked.json()["id"] == answer.headers["X-Guest-Job-ID"]
    assert asked.json()["cancel_requested_at"] != UNSET
    assert cluster.api.post(f"{path}/cancel").status_code in (202, 409)  # asking twice is asking once
    cluster.agent.release()
    assert cluster.api.finished(answer)["status"] == "error"
    late = cluster.api.post(f"{path}/cancel")
    assert (late.status_code, late.json()["reason"]) == (409, "already_finished")
    assert cluster.api.post("/jobs/00000000-0000-4000-8000-000000000000/cancel").status_code == 404


def test_a_forced_delete_releases_what_no_agent_confirms(cluster):
    guest = cluster.running_guest()
    cluster.agent.fail_next("delete", "the disk is busy")
    answer = cluster.api.delete(f"/guests/{guest['id']}", params={"force": "true"})
    job = cluster.api.finished(answer)
    assert (job["status"], job["force"]) == ("done", True)
    assert cluster.keys_with(guest["id"]) == []
    assert cluster.api.delete(f"/guests/{guest['id']}", params={"force": "perhaps"}).status_code == 400
