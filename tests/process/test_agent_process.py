"""The agent as a process: ready, watched, ended, killed, and without the parts it needs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from lochness.identity import GuestID, new_id
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until
from lochness_node.guest_lock import guest_lock
from tests.contract.agent.agent_process import AgentProcess, leased_agent
from tests.contract.agent.test_agent_images import WebServer, web
from tests.process.test_daemon_loop import Systemd

__all__ = ["web"]

STOP_LIMIT_S = 3.0  # promised is a second, on a machine that has time; a call to etcd may take 5


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


@pytest.fixture
def agent(tmp_path: Path, etcd_server: EtcdServer) -> Iterator[AgentProcess]:
    with leased_agent(tmp_path / "agent", etcd_server.url) as agent:
        yield agent


def terminated_s(agent: AgentProcess) -> float:
    """How long the process took to obey SIGTERM; it must end with 0."""
    began_s = time.monotonic()
    agent.process.signal(signal.SIGTERM)
    assert agent.process.wait(10) == 0
    return time.monotonic() - began_s


def running(agent: AgentProcess, id: str) -> bool:
    return bool(agent.get(f"/jobs/{id}").json()["Status"] == "Running")


def test_systemd_is_told_ready_alive_and_stopping(tmp_path: Path, etcd_server: EtcdServer, systemd: Systemd) -> None:
    agent = AgentProcess(tmp_path / "agent", etcd_server.url)
    agent.launch({**os.environ, "NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "400000"})
    with closing(agent):
        systemd.wait_for("READY=1")
        agent.wait_until_listening()
        assert agent.get("/healthz").status_code == 200
        systemd.wait_for("WATCHDOG=1", times=3, limit_s=5)
        assert terminated_s(agent) < STOP_LIMIT_S
    systemd.wait_for("STOPPING=1", limit_s=1)


def test_a_stop_waits_neither_for_jobs_nor_for_those_who_wait_for_them(agent: AgentProcess, web: WebServer) -> None:
    web.content = bytes(1 << 20)
    id = agent.post("/images", {"id": new_id(), "source": web.url}).headers["X-Guest-Job-ID"]
    wait_until(lambda: web.requests, limit_s=10, what="request for the image")
    answers: list[str] = []

    def wait_for_the_job() -> None:
        answers.append(httpx.get(f"{agent.url}/jobs/{id}?wait_s=50", timeout=60).json()["Status"])

    waiting = threading.Thread(target=wait_for_the_job)
    waiting.start()
    agent.get(f"/jobs/{id}", wait_s="0.3")
    assert terminated_s(agent) < STOP_LIMIT_S
    waiting.join(10)
    assert answers == ["Running"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_jobs_are_known_and_unfinished_ones_done_anew(agent: AgentProcess, how: signal.Signals) -> None:
    guest, other = agent.running_guest(), agent.guest(agent.with_image())
    agent.bind(other["id"])
    create = agent.get(f"/guests/{guest['id']}/jobs").json()[0]
    with (
        guest_lock(agent.directory / "locks", guest["id"], timeout_s=5),
        guest_lock(agent.directory / "locks", other["id"], timeout_s=5),
    ):
        stuck = [agent.post(f"/guests/{guest['id']}/{a}").headers["X-Guest-Job-ID"] for a in ("restart", "delete")]
        making = agent.post("/guests", other).headers["X-Guest-Job-ID"]
        for id in (stuck[0], making):
            wait_until(lambda id=id: running(agent, id), limit_s=10, what="running job")  # type: ignore[misc]
        agent.process.signal(how)
        agent.process.wait(10)
    agent.start()
    assert agent.get(f"/jobs/{create['ID']}").json() == create
    restart = agent.get(f"/jobs/{stuck[0]}").json()  # done twice it would not be what was asked for
    assert (restart["Status"], restart["Reason"]) == ("Error", "interrupted")
    assert restart["Message"] == "interrupted by a restart of the agent"
    ends = [agent.get(f"/jobs/{id}", wait_s="30").json() for id in (stuck[1], making)]
    assert [(job["Status"], job["Attempts"]) for job in ends] == [("Complete", 1), ("Complete", 2)]
    assert agent.get(f"/guests/{guest['id']}").status_code == 404
    assert agent.get(f"/guests/{other['id']}").json()["state"] == "running"
    assert {entry["job_id"] for entry in agent.logged("agent.job_resumed")} == {stuck[1], making}


def test_what_is_too_old_is_not_resumed(agent: AgentProcess) -> None:
    guest = agent.running_guest()
    agent.settings["jobs_resume_s"] = 0.000001
    with guest_lock(agent.directory / "locks", guest["id"], timeout_s=5):
        stuck = agent.post(f"/guests/{guest['id']}/delete").headers["X-Guest-Job-ID"]
        agent.process.kill()
    agent.start()
    assert agent.get(f"/jobs/{stuck}").json()["Reason"] == "interrupted"
    assert agent.get(f"/guests/{guest['id']}").json()["state"] == "missing"  # the test driver's domain ended


def test_a_fetch_that_was_killed_goes_on_after_the_next_start(agent: AgentProcess, web: WebServer) -> None:
    web.content, id = bytes(1 << 20), new_id()
    job = agent.post("/images", {"id": id, "source": web.url}).headers["X-Guest-Job-ID"]
    wait_until(lambda: web.requests, limit_s=10, what="request for the image")
    agent.process.kill()
    agent.start()
    web.release.set()
    assert agent.get(f"/jobs/{job}", wait_s="30").json()["Status"] == "Complete"
    assert agent.get(f"/images/{id}").json()["status"] == "complete"
    assert [path.name for path in agent.image_dir.iterdir()] == [id]


@pytest.mark.timeout(180)
def test_jobs_have_limits_running_waiting_and_kept(tmp_path: Path, etcd_server: EtcdServer) -> None:
    """What is too much is refused with the numbers and does nothing; the oldest ended jobs are forgotten for good."""
    with leased_agent(tmp_path / "agent", etcd_server.url, jobs_running=1, jobs_queued_max=2, jobs_kept=3) as agent:
        held, *others = (GuestID(new_id()) for _ in range(3))
        with guest_lock(agent.directory / "locks", held, timeout_s=5):
            answers = [agent.post(f"/guests/{id}/delete") for id in (held, *others)]
            refused = agent.post(f"/guests/{new_id()}/delete")
            assert (refused.status_code, refused.json()["reason"]) == (503, "unavailable")
            assert "3 jobs" in refused.json()["message"]
            assert [job["Status"] for job in agent.get("/jobs").json()] == ["Queued", "Queued", "Running"]
        ids = [agent.done(answer)["ID"] for answer in answers]
        ids += [agent.done(agent.post(f"/guests/{new_id()}/delete"))["ID"] for _ in range(2)]
        for _ in range(2):
            assert [job["ID"] for job in agent.get("/jobs").json()] == ids[:1:-1]
            assert agent.get(f"/jobs/{ids[0]}").status_code == 404
            assert len(list((agent.directory / "state" / "jobs").iterdir())) == 3
            agent.process.kill()
            agent.start()


def test_a_damaged_journal_entry_is_reported_and_stays(agent: AgentProcess) -> None:
    agent.running_guest()
    agent.process.stop()
    damaged = Path(str(agent.settings["state_dir"]), "jobs", f"{new_id()}.json")
    damaged.write_text('{"ID":')
    agent.start()
    assert [entry["path"] for entry in agent.logged("agent.job_unreadable")] == [str(damaged)]
    assert damaged.exists()
    assert len(agent.get("/jobs").json()) == 2


def test_without_libvirt_it_listens_says_what_is_missing_and_is_not_ready(
    tmp_path: Path, etcd_server: EtcdServer, systemd: Systemd
) -> None:
    agent = AgentProcess(
        tmp_path / "agent", etcd_server.url, libvirt=f"qemu+unix:///system?socket={tmp_path / 'nothing'}"
    )
    agent.launch({**os.environ, "NOTIFY_SOCKET": str(systemd.path)})
    with closing(agent):
        agent.wait_until_listening()
        wait_until(lambda: "libvirt" in agent.get("/healthz").text, limit_s=10, what="reason")
        answer = agent.get("/healthz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "not_ready")
        assert agent.get("/guests").status_code == 503
        assert agent.get("/jobs").json() == []
        agent.refused(agent.post(f"/guests/{new_id()}/delete"))  # taken, and its end says why
        assert systemd.count("READY=1") == 0
        assert len(agent.logged("daemon.pass_failed")) == 1
        assert terminated_s(agent) < STOP_LIMIT_S


def test_with_etcd_frozen_guests_are_shown_and_stopped_but_not_started(tmp_path: Path, own_etcd: EtcdServer) -> None:
    with leased_agent(tmp_path / "agent", own_etcd.url, etcd_timeout_s=1) as agent:
        guest = agent.running_guest()
        own_etcd.freeze()
        agent.done(agent.post(f"/guests/{guest['id']}/poweroff"))
        assert agent.get(f"/guests/{guest['id']}").json()["state"] == "stopped"
        assert agent.refused(agent.post(f"/guests/{guest['id']}/start"))["Reason"] == "unavailable"
        own_etcd.thaw()
        wait_until(
            lambda: agent.ended(agent.post(f"/guests/{guest['id']}/start"))["Status"] == "Complete",
            limit_s=20,
            what="start after etcd came back",
        )
        own_etcd.freeze()
        assert terminated_s(agent) < STOP_LIMIT_S
        own_etcd.thaw()


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("listen", "0.0.0.0:0", "insecure = true"),
        ("listen", "[::]:0", "insecure = true"),
        ("listen", "nonsense", "HOST:PORT"),
        ("listen", "example.org:80", "IP address"),
        ("state_dir", "relative", "absolute"),
        ("image_source_dirs", ["relative"], "absolute"),
        ("jobs_running", 0, "above 0"),
        ("shutdown_timeout_s", -1, "above 0"),
        ("shutdown_timeout", 1, "unknown setting"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(tmp_path: Path, setting: str, value: object, words: str) -> None:
    agent = AgentProcess(tmp_path, "http://127.0.0.1:1")
    agent.settings[setting] = value
    with closing(agent):
        process = agent.launch()
        assert process.wait(20) == 78
        lines = process.log.read_text().splitlines()
        assert len(lines) == 1
        assert words in lines[0]


def test_an_address_that_is_taken_ends_it(agent: AgentProcess, tmp_path: Path) -> None:
    other = AgentProcess(tmp_path / "other", agent.etcd_url, listen=agent.url.removeprefix("http://"))
    with closing(other):
        process = other.launch()
        assert process.wait(20) == 78
        assert "Address already in use" in process.log.read_text()


def test_off_loopback_is_allowed_when_it_is_written_down(tmp_path: Path, etcd_server: EtcdServer) -> None:
    with AgentProcess(tmp_path, etcd_server.url, listen="0.0.0.0:0", insecure=True) as agent:
        assert agent.url.startswith("http://0.0.0.0:")
