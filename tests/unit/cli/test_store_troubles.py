"""restore and fsck --repair when the store changes under them, or its answer is lost: told, and nothing claimed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lochness import keys
from lochness.backup import backup_lines, decide_restore, read_backup
from lochness.cli.backup import restore_by
from lochness.cli.fsck import repair_by
from lochness.cli.session import Session
from lochness.errors import AmbiguousWriteError, ConflictError, UnavailableError
from lochness.invariants import check
from lochness.repair_plan import repair_plan
from lochness.store.faults import FaultyStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Key, Prefix, Put

STALE = keys.guest_status("99999999-0000-4000-8000-000000000000")
SETTING = keys.config("any/thing")


def test_a_repair_whose_answer_is_lost_is_not_told_as_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = FaultyStore(MemoryStore())
    store.commit((), (Put(STALE, b'{"state":"running"}'),))
    reading = store.read(Prefix(keys.ROOT))
    file = tmp_path / "plan.json"
    file.write_bytes(repair_plan(reading.revision, check(reading.ranges[0])).to_json())
    store.fail(1, AmbiguousWriteError("etcd did not answer"), moment="after")
    store.fail(2, UnavailableError("etcd is away"), moment="before")  # nor does who asks what became of it
    session = Session()
    repair_by(session, store, file)
    assert capsys.readouterr().err.splitlines() == [
        f"lochness: done or not done, ask fsck again: delete {STALE}: etcd did not answer",
        "lochness: 0 of 1 repairs done",
    ]
    assert session.failures == [1]


def test_a_restore_stops_where_the_store_is_no_longer_as_it_was(capsys: pytest.CaptureFixture[str]):
    store = MemoryStore()
    store.commit((), (Put(SETTING, b"saved"),))
    saved = read_backup(b"".join(backup_lines(store.read(Prefix(keys.ROOT)), "2026-01-01T00:00:00Z")))
    store.commit((), (Put(SETTING, b"old"),))
    plan = decide_restore(saved, store.read(Prefix(keys.ROOT)))
    store.commit((), (Put(SETTING, b"new"),))
    with pytest.raises(ConflictError) as conflict:
        plan.transactions[0].commit(store)
    session = Session()
    restore_by(session, store, plan)
    line = f"stopped after 0 of 1 steps: {conflict.value.message}; run it again to go on"
    assert capsys.readouterr().err == f"lochness: {line}\n"
    assert session.failures == [1]
    found = store.read(Key(SETTING)).one()
    assert found is not None
    assert found.value == b"new"
