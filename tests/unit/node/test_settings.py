"""What the node's daemons accept as configuration, and how they refuse the rest."""

from __future__ import annotations

import pytest

from lochness.errors import ConfigurationError
from lochness.identity import get_hypervisor_id, new_id
from lochness.log import get_logger
from lochness_node.settings import (
    GuestwatchSettings,
    HeartbeatSettings,
    NodeSettings,
    ResourcesSettings,
    load_node_settings,
    reloaded,
)

ID = new_id()


def load(kind=NodeSettings, table="heartbeat", *, environment=None, **flags):
    return load_node_settings(kind, table, flags={"id": ID, **flags}, environment=environment or {})


def refused(text: str, *args, **kwargs) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        load(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "node.toml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults():
    settings = load(HeartbeatSettings)
    assert (settings.ttl_s, settings.interval_s, settings.request_timeout_s) == (30, 10.0, 5.0)
    assert (settings.libvirt, settings.guest_dir, settings.lock_dir) == (
        "qemu:///system",
        "/var/lib/lochness/guests",
        "/run/lochness",
    )


def test_file_then_environment_then_flag(file):
    config = file('libvirt = "test:///a"\nguest_dir = "/a"\nlock_dir = "/a"\n[heartbeat]\nttl_s = 40\nlock_dir = "/b"')
    environment = {"LOCHNESS_LIBVIRT": "test:///b", "LOCHNESS_GUEST_DIR": "/b"}
    settings = load(HeartbeatSettings, environment=environment, config=config, guest_dir="/c")
    assert (settings.libvirt, settings.guest_dir, settings.lock_dir, settings.ttl_s) == ("test:///b", "/c", "/b", 40)


def test_the_file_may_be_named_by_the_environment(file):
    assert load(environment={"LOCHNESS_CONFIG": file('libvirt = "test:///x"')}).libvirt == "test:///x"


def test_a_file_that_was_named_must_exist(tmp_path):
    refused("cannot read .*absent.toml", config=str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("text", ["ttl_seconds = 5", "[heartbeat]\nttl_seconds = 5"])
def test_an_unknown_key_is_refused(file, text):
    refused("unknown setting 'ttl_seconds'", HeartbeatSettings, config=file(text))


def test_an_unknown_table_is_refused(file):
    refused(r"unknown table \[hearbeat\]", HeartbeatSettings, config=file("[hearbeat]\nttl_s = 5"))


def test_another_daemons_table_is_not_looked_at(file):
    load(HeartbeatSettings, config=file("[agent]\nanything = 5"))


def test_ttl_below_the_minimum_needs_a_word():
    refused("ttl_s is 9 s, below the minimum of 10 s", HeartbeatSettings, ttl_s=9, interval_s=1, request_timeout_s=1)
    short = load(HeartbeatSettings, ttl_s=5, interval_s=1, request_timeout_s=1, allow_short_ttl=True)
    assert short.ttl_s == 5


def test_times_that_lose_the_lease_are_refused_with_the_numbers():
    refused(r"10 \+ 2 x 10\.5 = 31 s must not exceed ttl_s = 30 s", HeartbeatSettings, request_timeout_s=10.5)
    load(HeartbeatSettings, request_timeout_s=10.0)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (NodeSettings, {"guest_dir": "relative"}),
        (NodeSettings, {"lock_dir": "relative"}),
        (NodeSettings, {"libvirt": ""}),
        (HeartbeatSettings, {"interval_s": 0.0}),
        (ResourcesSettings, {"reserve_memory_mb": -1}),
        (ResourcesSettings, {"cpu_overcommit": 0.0}),
        (ResourcesSettings, {"refresh_s": -1.0}),
        (GuestwatchSettings, {"interval_s": 0.0}),
        (GuestwatchSettings, {"backoff_s": 10.0, "backoff_max_s": 5.0}),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(kind, flags):
    refused(next(iter(flags)), kind, **flags)


def test_a_wrong_type_is_refused_with_its_source(file):
    refused("ttl_s.*node.toml", HeartbeatSettings, config=file('[heartbeat]\nttl_s = "long"'))


def test_the_id_flag_wins_then_environment_then_file(file):
    config = file('id = "6F9619FF-8B86-D011-B42D-00C04FC964FF"')
    other = new_id()
    environment = {"HYPERVISOR_ID": other}
    assert load(environment={}, id=None, config=config).id == "6f9619ff-8b86-d011-b42d-00c04fc964ff"
    assert get_hypervisor_id() == "6f9619ff-8b86-d011-b42d-00c04fc964ff"
    assert load(environment=environment, id=None, config=config).id == other
    assert load(environment=environment, id=ID, config=config).id == ID


@pytest.mark.parametrize("bad", ["vm", "1234", "not-a-uuid"])
def test_a_bad_id_says_where_it_came_from(file, bad):
    refused(f"got '{bad}' from the argument", id=bad)
    refused(f"node.toml must be a UUID, got '{bad}'", id=None, config=file(f'id = "{bad}"'))


def test_a_reload_keeps_what_needs_a_restart():
    old = load(HeartbeatSettings)
    new = load(HeartbeatSettings, libvirt="test:///default", interval_s=5.0, id=new_id())
    kept = reloaded(old, new, get_logger("test"))
    assert (kept.id, kept.libvirt, kept.interval_s) == (old.id, old.libvirt, 5.0)
    assert get_hypervisor_id() == old.id
