"""`lochness-node NAME --check-config`: each kind of mistake is one line that names it, and exit status 78."""

from __future__ import annotations

from pathlib import Path

import pytest

from lochness.identity import new_id
from lochness_node.main import main

EXAMPLE = Path(__file__).parents[3] / "packaging/node.toml.example"
DAEMONS = ("heartbeat", "resources", "guestwatch", "agent")

# The file's text, the daemon it is for, and what the line must say.
MISTAKES = (
    ("ttl = 15", "resources", "unknown setting 'ttl'"),
    ("[heartbeat]\nttl = 15", "heartbeat", "unknown setting 'ttl'"),
    ("[hearbeat]\nttl_s = 15", "heartbeat", "unknown table [hearbeat]"),
    ("heartbeat = 15", "heartbeat", "[heartbeat] must be a table"),
    ("[heartbeat", "heartbeat", "not valid TOML"),
    ('[heartbeat]\nttl_s = "15"', "heartbeat", "'ttl_s'"),
    ("[heartbeat]\nttl_s = 9", "heartbeat", "below the minimum of 10 s"),
    ("[heartbeat]\nttl_s = 30000", "heartbeat", "above the maximum of 3600 s"),
    ("[heartbeat]\nttl_s = 15", "heartbeat", "10 + 2 x 5 = 20 s must not exceed ttl_s = 15 s"),
    ("[heartbeat]\ninterval_s = nan", "heartbeat", "'interval_s'"),
    ("[heartbeat]\ninterval_s = 0", "heartbeat", "interval_s must be above 0"),
    ("[heartbeat]\nallow_short_ttl = 1", "heartbeat", "'allow_short_ttl'"),
    ("etcd_timeout_s = inf", "resources", "must be a finite number, got inf"),
    ("etcd_timeout_s = 0", "resources", "etcd_timeout_s must be above 0"),
    ('etcd = "etcd:2379"', "resources", "etcd:2379"),
    ('etcd = "https://127.0.0.1:2379"', "resources", "CA"),
    ('etcd_ca = "/nonexistent.pem"\netcd = "https://127.0.0.1:2379"', "resources", "/nonexistent.pem"),
    ('log_level = "loud"', "resources", "'loud'"),
    ('libvirt = ""', "resources", "libvirt must be a connection URI"),
    ('guest_dir = "guests"', "resources", "guest_dir must be an absolute path"),
    ('lock_dir = "run"', "guestwatch", "lock_dir must be an absolute path"),
    ('metrics_listen = "0.0.0.0:17012"', "resources", "metrics_listen must be a loopback"),
    ("[resources]\nreserve_memory_mb = -1", "resources", "reserve_memory_mb must not be below 0"),
    ("[resources]\nreserve_memory_mb = 1.5", "resources", "'reserve_memory_mb'"),
    ("[resources]\nreserve_cpus_percent = 100", "resources", "reserve_cpus_percent must be from 0 to below 100"),
    ("[resources]\ncpu_overcommit = 0.0", "resources", "cpu_overcommit must be above 0"),
    ("[resources]\ncpu_overcommit = 1e6", "resources", "cpu_overcommit must be at most 1000"),
    ('[guestwatch]\nrestart = "sometimes"', "guestwatch", "'restart'"),
    ('[guestwatch]\nunbound = "destroy"', "guestwatch", "'unbound'"),
    ("[guestwatch]\nbackoff_max_s = 1", "guestwatch", "backoff_max_s is 1 s, below backoff_s = 5 s"),
    ("[guestwatch]\nstarts_at_once = 0", "guestwatch", "starts_at_once must be above 0"),
    ('[agent]\nlisten = "0.0.0.0:8080"', "agent", "0.0.0.0:8080"),
    ('[agent]\nlisten = "host"', "agent", "'host'"),
    ('[agent]\ntoken = "short"', "agent", "token"),
    ('[agent]\ntls_cert = "/nonexistent.crt"', "agent", "tls_"),
    ('[agent]\nimage_source_dirs = ["images"]', "agent", "image_source_dirs must be an absolute path"),
    ('[agent]\ndomain_type = "xen"', "agent", "'domain_type'"),
)


def checked(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main([*arguments, "--check-config"])
    out, err = capsys.readouterr()
    return status, out, err


def assert_refused(capsys, words: str, *arguments: str) -> None:
    status, out, err = checked(capsys, *arguments)
    assert (status, out) == (78, ""), err
    assert len(err.splitlines()) == 1, err
    assert words in err


@pytest.mark.parametrize(("text", "daemon", "words"), MISTAKES)
def test_a_mistake_in_the_file_is_one_line(capsys, tmp_path, text, daemon, words):
    file = tmp_path / "node.toml"
    file.write_text(text)
    assert_refused(capsys, words, daemon, "--id", new_id(), "--config", str(file))
    assert_refused(capsys, words, "all", "--id", new_id(), "--config", str(file))


def test_a_file_that_cannot_be_read_is_named(capsys, tmp_path):
    assert_refused(capsys, "absent.toml", "heartbeat", "--id", new_id(), "--config", str(tmp_path / "absent.toml"))
    assert_refused(capsys, str(tmp_path), "heartbeat", "--id", new_id(), "--config", str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b'libvirt = "\xe4"')
    assert_refused(capsys, "latin.toml", "heartbeat", "--id", new_id(), "--config", str(tmp_path / "latin.toml"))


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_daemon_accepts_the_example(capsys, daemon):
    status, out, err = checked(capsys, daemon, "--id", new_id(), "--config", str(EXAMPLE))
    assert (status, err) == (0, "")
    assert "valid" in out
