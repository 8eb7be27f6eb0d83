"""The controller as a process: systemd's socket, signals, configuration, an etcd that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from lochness.store.connect import open_store
from lochness_lab.etcd import EtcdServer
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, make_cluster
from tests.process.controller_process import ControllerProcess, wait_logged

STOP_LIMIT_S = 3.0  # promised is a second, on a machine that has time; a call to etcd may take 5


def stop_and_time(controller: ControllerProcess) -> float:
    started_s = time.monotonic()
    code = controller.running.stop(limit_s=5)
    assert code == 0, controller.running.log_tail()
    return time.monotonic() - started_s


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lochness_controller", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **environment},
    )


def test_ready_watchdog_and_a_stop_within_a_second(etcd_server, tmp_path):
    with ControllerProcess(tmp_path, etcd_server.url, WATCHDOG_USEC="600000") as controller:
        controller.wait_ready()
        with Api(controller.urls[0]) as api:
            assert api.get("/readyz").status_code == 200
            wait_until(lambda: controller.notified.messages().count("WATCHDOG=1") >= 3, limit_s=5, what="signs of life")
            assert stop_and_time(controller) < STOP_LIMIT_S
        assert "STOPPING=1" in controller.notified.messages()
        assert len(controller.logged("daemon.stopped")) == 1


def test_an_etcd_that_is_not_there_is_waited_for_and_said_once(tmp_path):
    etcd = EtcdServer(tmp_path / "etcd")
    with etcd:
        url = etcd.url
    with ControllerProcess(tmp_path / "controller", url) as controller, Api(controller.urls[0]) as api:
        wait_logged(controller, "store.connection_lost")
        answer = api.get("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
        assert api.get("/healthz").status_code == 200
        wait_until(lambda: api.get("/readyz").status_code == 503, limit_s=5, what="another refusal")
        assert "READY=1" not in controller.notified.messages()
        with etcd:
            controller.wait_ready()
            assert api.get("/readyz").status_code == 200
            assert len(controller.logged("store.connection_lost")) == 1
            wait_logged(controller, "store.connection_recovered")
            assert api.post("/networks", json={}).status_code == 201
            assert stop_and_time(controller) < STOP_LIMIT_S


def test_it_stops_within_a_second_while_agent_etcd_and_client_all_hang(own_etcd, tmp_path):
    with FakeAgent() as agent, ControllerProcess(tmp_path / "controller", own_etcd.url) as controller:
        controller.wait_ready()
        with open_store(own_etcd.url) as store, Api(controller.urls[0]) as api:
            cluster = make_cluster(api, store, agent)
            agent.hold("create")
            answer = cluster.create_guest()
            job = answer.headers["X-Guest-Job-ID"]
            wait_until(lambda: agent.asked("POST", "/guests"), limit_s=10, what="create at the agent")
            waiter = threading.Thread(target=_wait_long, args=(controller.urls[0], job), daemon=True)
            waiter.start()
            own_etcd.freeze()
            try:
                assert stop_and_time(controller) < STOP_LIMIT_S
            finally:
                own_etcd.thaw()
                agent.release()
            waiter.join(10)


def _wait_long(url: str, job: str) -> None:
    try:
        httpx.get(f"{url}/jobs/{job}", params={"wait_s": "30"}, timeout=30, trust_env=False)
    except httpx.HTTPError:
        return


def test_every_listen_address_serves_the_same(etcd_server, tmp_path):
    arguments = ("--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--listen", "[::1]:0")
    with ControllerProcess(tmp_path, etcd_server.url, *arguments) as controller:
        wait_until(lambda: len(controller.urls) == 3, limit_s=5, what="three addresses")
        controller.wait_ready()
        made = httpx.post(f"{controller.urls[0]}/networks", json={}, trust_env=False).json()
        for url in controller.urls:
            assert httpx.get(f"{url}/networks/{made['id']}", trust_env=False).json() == made


def test_a_reload_is_told_to_systemd_and_puts_the_new_limits_in_force(etcd_server, tmp_path):
    file = tmp_path / "controller.toml"
    file.write_text('listen = ["127.0.0.1:0"]\n')
    with ControllerProcess(tmp_path / "c", etcd_server.url, "--config", str(file)) as controller:
        controller.wait_ready()
        assert any(text.startswith("STATUS=listening on 127.0.0.1:") for text in controller.notified.messages())
        file.write_text('listen = ["127.0.0.1:1"]\nlog_level = "debug"\njob_kept_s = 60\n')
        controller.running.signal(signal.SIGHUP)
        wait_logged(controller, "daemon.reloaded")
        (entry,) = controller.logged("daemon.settings_need_restart")
        assert entry["settings"] == "listen"
        wait_until(lambda: controller.notified.messages().count("READY=1") == 2, limit_s=15, what="the second READY")
        told = controller.notified.messages()
        (reloading,) = [index for index, text in enumerate(told) if text.startswith("RELOADING=1\nMONOTONIC_USEC=")]
        assert told.index("READY=1") < reloading < len(told) - 1 - told[::-1].index("READY=1")
        assert stop_and_time(controller) <= STOP_LIMIT_S


def test_a_reload_of_nonsense_leaves_the_old_settings_in_force(etcd_server, tmp_path):
    file = tmp_path / "controller.toml"
    file.write_text('listen = ["127.0.0.1:0"]\n')
    with ControllerProcess(tmp_path / "c", etcd_server.url, "--config", str(file)) as controller:
        controller.wait_ready()
        file.write_text("job_kept_s = -1\n")
        controller.running.signal(signal.SIGHUP)
        wait_logged(controller, "daemon.reload_failed")
        assert "job_kept_s" in controller.logged("daemon.reload_failed")[0]["error"]
        wait_until(lambda: controller.notified.messages().count("READY=1") == 2, limit_s=15, what="the second READY")
        assert httpx.get(f"{controller.urls[0]}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "0.0.0.0:17000"], "insecure = true"),
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--etcd", "ftp://x"], "the scheme is 'ftp'"),
        (["--log-level", "loud"], "log level"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (["--config", "{file}"], "lease_ttl_s = 9 must be at least 2 x etcd_timeout_s = 10 s"),
    ],
)
def test_what_it_can_not_work_with_ends_in_one_line_and_78(arguments, words, tmp_path):
    file = tmp_path / "controller.toml"
    file.write_text("lease_ttl_s = 9\netcd_timeout_s = 5\n")
    ended = run(*(argument.format(file=file) for argument in arguments))
    assert ended.returncode == 78
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line]
    assert len(lines) == 1
    assert words in lines[0]


def test_a_port_that_is_taken_is_78(etcd_server, tmp_path):
    with ControllerProcess(tmp_path, etcd_server.url) as controller:
        ended = run("--etcd", etcd_server.url, "--listen", controller.urls[0].removeprefix("http://"))
    assert ended.returncode == 78
    assert "Address already in use" in ended.stderr


def test_the_file_the_environment_and_the_flags_in_this_order(tmp_path):
    file = tmp_path / "controller.toml"
    file.write_text('listen = ["192.0.2.1:1"]\ninsecure = false\n')
    refused = run("--check-config", "--config", str(file))
    assert refused.returncode == 78
    assert "192.0.2.1:1" in refused.stderr
    assert run("--check-config", "--config", str(file), LOCHNESS_LISTEN="127.0.0.1:1").returncode == 0
    assert "192.0.2.2:2" in run("--check-config", "--listen", "192.0.2.2:2", LOCHNESS_LISTEN="127.0.0.1:1").stderr
    file.write_text("fetch_limit = 3\n")
    misspelt = run("--check-config", LOCHNESS_CONFIG=str(file))
    assert misspelt.returncode == 78
    assert "unknown setting 'fetch_limit'" in misspelt.stderr
