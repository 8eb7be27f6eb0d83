"""The commands that work on the store itself, against a real etcd: fsck, backup, restore."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness import keys
from lochness.context import Context
from lochness.model.job import JobRecord
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Delete, DeletePrefix, Prefix, Put, Store
from lochness_lab.etcd import EtcdServer

GONE = "99999999-0000-4000-8000-000000000000"
STALE = keys.guest_status(GONE)


@pytest.fixture
def store(own_etcd: EtcdServer) -> Iterator[Store]:
    with EtcdStore([own_etcd.url]) as store:
        context = Context(store)
        for name in ("lan", "wan"):
            network = context.new_network()
            network.metadata = {"name": name}
            network.save()
        context.set_config("any/thing", "ünïcode\n")
        yield store


@pytest.fixture
def lochness(own_etcd: EtcdServer, tmp_path: Path):
    def run(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "lochness.cli.main", *map(str, words)]
        environment = {**os.environ, "LOCHNESS_ETCD": own_etcd.url, "PYTHONPATH": os.getcwd()}
        return subprocess.run(command, input=stdin, capture_output=True, env=environment, cwd=tmp_path, timeout=50)

    return run


def content(store: Store) -> dict[str, bytes]:
    return {item.key: item.value for item in store.read(Prefix(keys.ROOT)).ranges[0]}


def test_fsck_is_quiet_about_a_clean_store(store: Store, lochness):
    done = lochness("fsck")
    reading = store.read(Prefix(keys.ROOT))
    line = f"{len(reading.ranges[0])} keys at revision {reading.revision}: every promise is kept"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", f"lochness: {line}\n")


def test_fsck_reports_plans_and_mends_what_has_not_changed_since(store: Store, lochness, tmp_path: Path):
    other = keys.guest_status(GONE.replace("9", "8"))
    store.commit((), (Put(STALE, b'{"state":"running"}'), Put(other, b"{}")))
    before = content(store)
    done = lochness("fsck", "--plan", "plan.json", "-j")
    assert done.returncode == 1, done.stderr
    assert {json.loads(line)["kind"] for line in done.stdout.splitlines()} == {"part_without_record"}
    counted = f"{len(before)} keys at revision {store.read(Prefix(keys.ROOT)).revision}"
    lines = [
        "lochness: 2 repairs are in plan.json; read it, then: lochness fsck --repair plan.json",
        f"lochness: {counted}: 2 broken promises, 2 of them can be mended by a plan",
    ]
    assert done.stderr.decode().splitlines() == lines
    assert content(store) == before
    store.commit((), (Put(other, b'{"state":"stopped"}'),))
    mended = lochness("fsck", "--repair", "plan.json")
    assert mended.returncode == 1
    assert set(mended.stderr.decode().splitlines()) == {
        f"lochness: left alone, its keys have changed since the plan was made: delete {other}",
        f"lochness: done: delete {STALE}",
        "lochness: 1 of 2 repairs done",
    }
    assert content(store) == {key: value for key, value in before.items() if key != STALE} | {
        other: b'{"state":"stopped"}'
    }
    assert lochness("fsck", "--plan", "plan.json").returncode == 1
    assert lochness("fsck", "--repair", "plan.json").returncode == 0
    assert lochness("fsck").returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"\xff", b'{"format":"lochness-repair-plan","version":9,"revision":1,"repairs":[]}',
        json.dumps({"format": "lochness-repair-plan", "version": 1, "revision": 1, "repairs": [
            {"kind": "x", "text": "x", "repair": "x", "seen": [{"key": "/registry", "mod_revision": 0}],
             "changes": [{"key": "/registry"}]}]}).encode(),
    ],
    ids=["empty", "another shape", "no text", "another version", "another's keys"],
)  # fmt: skip
def test_what_is_no_plan_is_refused_in_one_line(store: Store, lochness, tmp_path: Path, text: bytes):
    (tmp_path / "plan.json").write_bytes(text)
    before = content(store)
    done = lochness("fsck", "--repair", "plan.json")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1), done.stderr
    assert b"plan" in done.stderr
    assert content(store) == before


def test_a_backup_restores_an_empty_store_to_the_letter(store: Store, lochness, tmp_path: Path):
    lease = store.grant_lease(30)
    store.commit((), (Put(keys.hypervisor_heartbeat(GONE), b"{}", lease),))
    before = content(store)
    done = lochness("backup", "all.jsonl")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "all.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["all.jsonl"] or "etcd" in os.listdir(tmp_path)
    header = json.loads(file.read_bytes().splitlines()[0])
    kept = len(before) - 1
    assert done.stderr.decode() == f"lochness: {kept} keys of revision {header['revision']} are in all.jsonl\n"
    refused = lochness("restore", "all.jsonl")
    assert refused.returncode == 1
    assert refused.stderr.decode().splitlines() == [
        f"lochness: a whole backup of {header['created_at']}: {kept} keys of revision {header['revision']}",
        "lochness: 0 keys to add",
        "lochness: 0 keys to change",
        "lochness: 0 keys to delete",
        f"lochness: alive now: {keys.hypervisor_heartbeat(GONE)}",
        "lochness: refused: 1 daemons or controllers are alive; stop them, or say --force",
    ]
    store.revoke_lease(lease)
    store.commit((), (DeletePrefix(keys.ROOT),))
    checked = lochness("restore", "--check", "all.jsonl")
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == len(before) - 1
    assert content(store) == {}
    done = lochness("restore", "all.jsonl")
    line = "restored; now ask lochness fsck, then start the controllers and the nodes' daemons"
    assert (done.returncode, done.stderr.decode().splitlines()[-1]) == (0, f"lochness: {line}")
    assert content(store) == {key: value for key, value in before.items() if not key.endswith("/heartbeat")}
    again = lochness("restore", "-", stdin=file.read_bytes())
    assert (again.returncode, again.stdout) == (0, b"")


def test_a_restore_over_other_keys_wants_force_and_takes_up_no_old_work(store: Store, lochness, tmp_path: Path):
    job = JobRecord(id=GONE, action="delete", guest=GONE)
    store.commit((), (Put(keys.job(GONE), job.to_json()),))
    assert lochness("backup", "all.jsonl").returncode == 0
    saved = content(store)
    store.commit((), (Put(keys.config("any/thing"), b"new"), Put(keys.config("since"), b"1"), Delete(keys.job(GONE))))
    changed = content(store)
    checked = lochness("restore", "all.jsonl", "--check")
    assert checked.returncode == 1
    assert b"the backup itself breaks a promise: job_without_guest" in checked.stderr
    refused = lochness("restore", "all.jsonl")
    assert refused.returncode == 1
    assert b"refused: 1 keys would change and 1 be deleted; say --force" in refused.stderr
    assert content(store) == changed
    done = lochness("restore", "all.jsonl", "--force")
    assert done.returncode == 0, done.stderr
    assert b"1 jobs that were unfinished are left out" in done.stderr
    assert content(store) == {key: value for key, value in saved.items() if key != keys.job(GONE)}


def damaged(lines: list[bytes]) -> dict[str, bytes]:
    return {
        "empty": b"",
        "cut off": b"".join(lines[:-1]),
        "cut off in a line": b"".join(lines)[:-40],
        "a line lost": b"".join([lines[0], *lines[2:]]),
        "a letter changed": b"".join(lines).replace(b"Z", b"Y", 1),
        "something else": b"PK\x03\x04 a zip file\n",
    }


@pytest.mark.parametrize("how", list(damaged([b"", b""])))
def test_a_damaged_backup_is_refused_before_anything_is_done(store: Store, lochness, tmp_path: Path, how: str):
    assert lochness("backup", "all.jsonl").returncode == 0
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True)
    before = content(store)
    (tmp_path / "all.jsonl").write_bytes(damaged(lines)[how])
    done = lochness("restore", "all.jsonl", "--force")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1), done.stderr
    assert b"backup" in done.stderr
    assert content(store) == before


def test_a_file_that_cannot_be_had_is_one_line(store: Store, lochness):
    golden = {
        ("restore", "nothing"): "cannot read nothing: No such file or directory",
        ("restore", "."): "cannot read .: Is a directory",
        ("fsck", "--repair", "nothing"): "cannot read nothing: No such file or directory",
        ("fsck", "--repair", "/dev/zero"): "/dev/zero holds more than 256 MB",
        ("backup", "no/such/place"): "cannot write no/such/place: No such file or directory",
        ("fsck", "--plan", "no/such/place"): "cannot write no/such/place: No such file or directory",
        ("fsck", "--plan", "a", "--repair", "b"): ("--plan and --repair exclude each other: read the plan in between"),
    }
    for words, line in golden.items():
        done = lochness(*words)
        assert (done.returncode, done.stderr.decode()) == (2, f"lochness: {line}\n")
