"""The command line against the real controller: changes whose answer is lost, changes of others, and events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from lochness import keys
from lochness.store.protocol import Key, Put
from tests.contract.api.between import Passing, between
from tests.contract.api.test_events import another


class CommandLine:
    """`lochness` as a process; remembers what it said last."""

    def __init__(self, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCHNESS_")}
        self._environment = {**kept, "XDG_CONFIG_HOME": str(home)}
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "lochness.cli.main", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.out, self.err = done.stdout, done.stderr
        return done.returncode


@pytest.fixture
def lochness(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home")


def named(api, path: str, name: str) -> list[dict]:
    return [record for record in api.get(path).json() if record["metadata"].get("name") == name]


@pytest.mark.parametrize("lost", [1, 2])
def test_a_create_whose_answer_is_lost_is_done_once(controller, api, lochness, lost: int):
    """Once lost it is asked for again and its answer is the first one's; lost twice the person is told."""
    name = f"lan-{uuid.uuid4()}"
    keys_sent: list[str] = []

    def before(request: Passing) -> bool:
        keys_sent.append(request.headers.get("idempotency-key", ""))
        return request.method == "POST" and len(keys_sent) <= lost

    with between(controller.url, before) as url:
        status = lochness("--server", url, "-o", "id", "network", "create", "--name", name)
    made = named(api, "/networks", name)
    assert len(made) == 1
    assert len(keys_sent) == 2
    assert len(set(keys_sent) - {""}) == 1
    if lost == 1:
        assert (status, lochness.out, lochness.err) == (0, f"{made[0]['id']}\n", "")
    else:
        assert (status, lochness.out) == (1, "")
        assert "it may have been done; look before repeating it" in lochness.err


def test_a_guest_whose_answer_is_lost_is_made_once_and_its_job_followed(controller, cluster, lochness):
    name = f"web-{uuid.uuid4()}"
    seen: list[str] = []

    def before(request: Passing) -> bool:
        seen.append(request.method)
        return request.method == "POST" and seen.count("POST") == 1

    with between(controller.url, before) as url:
        words = ("--flavor", cluster.flavor, "--network", cluster.network, "--name", name)
        status = lochness("--server", url, "-j", "guest", "create", *words, "--wait")
    assert status == 0, lochness.err
    made = named(cluster.api, "/guests", name)
    assert len(made) == 1
    assert json.loads(lochness.out)["id"] == made[0]["id"]
    assert seen.count("POST") == 2


def test_a_change_that_rests_on_what_another_has_changed_is_not_done(controller, api, lochness):
    network = api.made("/networks", {"metadata": {"name": f"lan-{uuid.uuid4()}", "owner": "ops"}})
    path = f"/networks/{network['id']}"

    def before(request: Passing) -> bool:
        if request.method == "PATCH":
            assert api.patch(path, json={"metadata": {**network["metadata"], "owner": "db"}}).status_code == 200
        return False

    with between(controller.url, before) as url:
        status = lochness("--server", url, "network", "modify", network["id"], "--metadata", "rack=1")
    line = "somebody else has changed it meanwhile; nothing was done to it, look again"
    assert (status, lochness.err) == (5, f"lochness: {line}\n")
    assert api.get(path).json()["metadata"] == {**network["metadata"], "owner": "db"}
    assert lochness("--server", controller.url, "network", "modify", network["id"], "--metadata", "rack=1") == 0
    assert api.get(path).json()["metadata"] == {**network["metadata"], "owner": "db", "rack": "1"}


def test_apply_changes_only_what_it_has_shown(controller, api, lochness, tmp_path: Path):
    name = f"lan-{uuid.uuid4()}"
    network = api.made("/networks", {"metadata": {"name": name, "owner": "ops"}})
    file = tmp_path / "cluster.toml"
    file.write_text(f'[network."{name}"]\nmetadata = {{ rack = "1" }}\n')

    def before(request: Passing) -> bool:
        if request.method == "PATCH":
            changed = {"metadata": {**network["metadata"], "owner": "db"}}
            assert api.patch(f"/networks/{network['id']}", json=changed).status_code == 200
        return False

    with between(controller.url, before) as url:
        status = lochness("--server", url, "apply", "-f", str(file), "--yes")
    assert status == 1
    line = f"network {name}: somebody else has changed it meanwhile; nothing was done to it, look again"
    assert lochness.err == f"lochness: {line}\nlochness: 0 of 1 changes done\n"
    assert lochness("--server", controller.url, "apply", "-f", str(file), "--yes") == 0
    assert api.get(f"/networks/{network['id']}").json()["metadata"] == {"name": name, "owner": "db", "rack": "1"}


def test_events_since_a_revision_are_all_printed_whoever_tells_them(controller, lochness):
    """Out of the window, and out of the store's history by a controller that has begun later."""
    before = controller.store.read(Key(keys.ROOT)).revision
    for name in ("a", "b"):
        controller.store.commit((), (Put(keys.config(f"told/{name}"), name.encode()),))
    with another(controller.settings.etcd) as second:
        for url in (controller.url, second.url):
            words = ("events", "--since", str(before), "--kind", "config")
            assert lochness("--server", url, "-j", *words) == 0, lochness.err
            told = [json.loads(line) for line in lochness.out.splitlines()]
            assert [event["value"] for event in told] == ["a", "b"]
