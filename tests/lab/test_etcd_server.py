"""An etcd of our own keeps its data and its address over stop, kill and restart, and can be frozen."""

from __future__ import annotations

import base64

import httpx
import pytest

from lochness.errors import UnavailableError
from lochness_lab.etcd import EtcdCluster, EtcdServer, free_ports


def b64(text):
    return base64.b64encode(text.encode()).decode()


def put(url, key, value):
    body = {"key": b64(key), "value": b64(value)}
    httpx.post(f"{url}/v3/kv/put", json=body, timeout=5, trust_env=False).raise_for_status()


def get(url, key, timeout_s=5.0):
    answer = httpx.post(f"{url}/v3/kv/range", json={"key": b64(key)}, timeout=timeout_s, trust_env=False).json()
    return [base64.b64decode(row["value"]).decode() for row in answer.get("kvs", [])]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_data_and_address_survive_an_end(own_etcd, end):
    url = own_etcd.url
    put(url, "loch", "ness")
    getattr(own_etcd, end)()
    assert not own_etcd.is_running
    with pytest.raises(httpx.ConnectError):
        get(url, "loch")
    own_etcd.start()
    assert own_etcd.url == url
    assert get(url, "loch") == ["ness"]


def test_restart_is_another_process_with_the_same_data(own_etcd):
    put(own_etcd.url, "loch", "ness")
    before = own_etcd.pid
    own_etcd.restart()
    assert own_etcd.pid != before
    assert get(own_etcd.url, "loch") == ["ness"]


def test_at_its_end_nothing_is_left_but_its_log(tmp_path):
    with EtcdServer(tmp_path / "etcd") as server:
        put(server.url, "loch", "ness")
    left = [path for path in (tmp_path / "etcd").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".log"}
    assert sum(path.stat().st_size for path in left) < 1 << 20


def test_at_a_clusters_end_nothing_is_left_but_its_logs(tmp_path):
    with EtcdCluster(tmp_path) as cluster:
        assert len(list(tmp_path.rglob("data/member"))) == len(cluster.members)
    assert not list(tmp_path.rglob("data"))


def test_frozen_it_accepts_and_does_not_answer(own_etcd):
    put(own_etcd.url, "loch", "ness")
    own_etcd.freeze()
    with pytest.raises(httpx.ReadTimeout):
        get(own_etcd.url, "loch", timeout_s=0.3)
    own_etcd.thaw()
    assert get(own_etcd.url, "loch") == ["ness"]


def test_two_at_once_know_nothing_of_each_other(own_etcd, tmp_path):
    with EtcdServer(tmp_path / "other") as other:
        assert other.url != own_etcd.url
        put(own_etcd.url, "loch", "ness")
        assert get(other.url, "loch") == []


def test_a_taken_port_is_told_with_the_log(own_etcd, tmp_path):
    taken = int(own_etcd.url.rpartition(":")[2])
    with pytest.raises(UnavailableError, match="address already in use"):
        EtcdServer(tmp_path / "other", ports=(taken, free_ports(1)[0])).start()


def test_inside_a_machine_only_the_machine_reaches_it(own_machine, tmp_path):
    with EtcdServer(tmp_path / "inside", machine=own_machine) as inside:
        assert inside.url == "http://127.0.0.1:2379"
        assert inside.pid in own_machine.pids()
        listeners = own_machine.run(["ss", "-Hltn"]).stdout
        assert "127.0.0.1:2379" in listeners
        own_machine.power_off()
        assert not inside.is_running
