"""The command `lochness-node`: what it accepts, refuses and runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lochness import events
from lochness.identity import new_id
from lochness_lab.etcd import free_ports
from tests.process.node_daemons import CHECKOUT, Cluster, NodeProcess

DAEMONS = ("heartbeat", "resources", "guestwatch", "agent")
COMMANDS = (*DAEMONS, "all")


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lochness_node.main", *arguments],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], **(environment or {})},
        capture_output=True,
        text=True,
        timeout=30,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Refused as a configuration that a restart cannot help, with one line for people."""
    assert done.returncode == 78
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostname_that_is_no_uuid_ends_with_78_and_one_line(command):
    assert_one_line(run(command), "must be a UUID", repr(os.uname().nodename), "from the hostname")


def test_the_line_says_where_the_id_came_from(tmp_path):
    assert_one_line(run("heartbeat", "--id", "hv1"), "'hv1' from the argument")
    assert_one_line(
        run("heartbeat", environment={"HYPERVISOR_ID": "hv2"}), "'hv2' from the environment variable HYPERVISOR_ID"
    )
    (tmp_path / "node.toml").write_text('id = "hv3"')
    assert_one_line(run("heartbeat", "--config", str(tmp_path / "node.toml")), "'hv3'", "node.toml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "/nonexistent.toml"], ["cannot read", "/nonexistent.toml"]),
        (["--log-level", "loud"], ["log level", "'loud'"]),
        (["--etcd", "ftp://127.0.0.1"], ["ftp://127.0.0.1"]),
        (["--etcd", "https://127.0.0.1:2379", "--etcd-ca", "/nonexistent.pem"], ["/nonexistent.pem"]),
    ],
)
def test_what_can_never_work_is_refused_before_anything_runs(arguments, words):
    assert_one_line(run("heartbeat", "--id", new_id(), *arguments), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[heartbeat]\nttl = 5", ["unknown setting 'ttl'"]),
        ("[heartbeats]\nttl_s = 5", ["unknown table [heartbeats]"]),
        ("[heartbeat", ["not valid TOML"]),
        ("[heartbeat]\nttl_s = 15", ["10 + 2 x 5 = 20 s", "ttl_s = 15 s"]),
        ("[heartbeat]\nttl_s = '15'", ["ttl_s", "node.toml"]),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, words):
    (tmp_path / "node.toml").write_text(text)
    assert_one_line(run("heartbeat", "--id", new_id(), "--config", str(tmp_path / "node.toml")), *words)


@pytest.mark.parametrize("command", COMMANDS)
def test_check_config_says_whether_it_would_run(command):
    id = new_id()
    done = run(command, "--id", id.upper(), "--check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert id in done.stdout
    assert_one_line(run(command, "--id", id, "--check-config", "--etcd", ","), "etcd")


def test_every_flag_has_its_environment_variable():
    text = run("all", "--help").stdout
    for variable in (
        "LOCHNESS_ETCD", "LOCHNESS_ETCD_CA", "LOCHNESS_ETCD_CERT", "LOCHNESS_ETCD_KEY", "LOCHNESS_LOG_LEVEL",
        "LOCHNESS_CONFIG", "LOCHNESS_LIBVIRT", "LOCHNESS_GUEST_DIR", "LOCHNESS_LOCK_DIR", "LOCHNESS_LISTEN",
        "HYPERVISOR_ID",
    ):  # fmt: skip
        assert f"[{variable}]" in text
    assert_one_line(run("agent", "--id", new_id(), environment={"LOCHNESS_LISTEN": "nowhere"}), "'nowhere'")


def test_the_heartbeat_needs_neither_libvirt_nor_a_web_server():
    program = """
import sys
from lochness_node import main
main._BUILDERS["heartbeat"](vars(main._parser().parse_args(["heartbeat"])))
print(*sorted({"libvirt", "litestar", "uvicorn", "psutil", "httpx"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "HYPERVISOR_ID": new_id()},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_is_ready_stops_within_a_second_and_says_nothing_unexpected(etcd_server, tmp_path, command):
    with (
        Cluster(etcd_server.url) as cluster,
        NodeProcess(tmp_path, command, *flags(tmp_path, cluster, command)) as node,
    ):
        node.wait_until_ready()
        assert not [entry for entry in node.log if entry["level"] in ("warning", "error")], node.process.log_tail()
        node.assert_stops()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_tells_prometheus_of_its_passes_and_its_figures(etcd_server, tmp_path, command):
    place = tmp_path / "metrics"
    environment = {"LOCHNESS_METRICS_LISTEN": f"unix:{place}"}
    with (
        Cluster(etcd_server.url) as cluster,
        NodeProcess(tmp_path, command, *flags(tmp_path, cluster, command), environment=environment) as node,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(place))) as client,
    ):
        node.wait_until_ready()
        told = client.get("http://here/metrics").text
        for daemon in DAEMONS if command == "all" else (command,):
            assert f'lochness_daemon_passes_total{{daemon="{daemon}",result="good"}}' in told
        expected = {
            "heartbeat": "lochness_heartbeat_lease_ttl_seconds 30.0",
            "resources": 'lochness_resources_memory_bytes{of="available"}',
            "guestwatch": 'lochness_guestwatch_guests{state="running"} 0.0',
            "agent": "lochness_build_info",
            "all": 'lochness_log_events_total{event="daemon.ready",level="info"} 1.0',
        }
        assert expected[command] in told
        node.assert_stops()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_survives_an_etcd_that_freezes_and_still_stops_in_time(own_etcd, tmp_path, command):
    with Cluster(own_etcd.url) as cluster, NodeProcess(tmp_path, command, *flags(tmp_path, cluster, command)) as node:
        node.wait_until_ready()
        own_etcd.freeze()
        node.assert_stops()
        own_etcd.thaw()


def test_all_do_their_work_in_one_process(etcd_server, tmp_path):
    with Cluster(etcd_server.url) as cluster, NodeProcess(tmp_path, "all", *flags(tmp_path, cluster, "all")) as node:
        node.wait_until_ready()
        assert cluster.heartbeat is not None
        assert cluster.resources is not None
        guest_id, _ = cluster.bind("running")
        cluster.wait_for_status(guest_id, "missing", limit_s=20)
        node.assert_stops()
        assert cluster.heartbeat is None
        assert node.logged(events.DAEMON_STOPPED, left_behind=[])


def flags(directory: Path, cluster: Cluster, command: str) -> list[str]:
    """Flags of a daemon whose files all lie below `directory`."""
    state = directory / "state"
    config = directory / "node.toml"
    config.write_text(
        f'[agent]\nstate_dir = "{state}"\nimage_dir = "{state}/images"\nimage_source_dirs = ["{state}/sources"]\n'
    )
    given = [*cluster.flags, "--config", str(config)]
    if command != "heartbeat":
        given += ["--libvirt", "test:///default"]
    if command in ("agent", "all"):
        given += ["--listen", f"127.0.0.1:{free_ports(1)[0]}"]
    return given
