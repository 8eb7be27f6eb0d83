"""A request to cancel a job (lochness.jobs), on both stores."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lochness import keys
from lochness.errors import AmbiguousWriteError, ConflictError, NotFoundError
from lochness.ids import new_id
from lochness.jobs import request_cancel
from lochness.model.job import JobRecord
from lochness.store.faults import FaultyStore
from lochness.store.protocol import Key, Put
from lochness.transactions import create_job

NOW = datetime(2026, 1, 1, tzinfo=UTC)
THEN = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def job(store):
    job = JobRecord(id=new_id(), guest=new_id(), action="create", status="working", worker="somebody")
    create_job(job).commit(store)
    return job


def stored(store, job) -> JobRecord:
    return JobRecord.from_json(store.read(Key(keys.job(job.id))).one().value)


def test_a_request_changes_one_field(store, job):
    asked = request_cancel(store, job.id, NOW)
    assert asked.is_cancel_requested
    assert stored(store, job) == asked == job.patched({"cancel_requested_at": "2026-01-01T00:00:00.000000Z"})


def test_asking_twice_is_asking_once(store, job):
    first = request_cancel(store, job.id, NOW)
    assert request_cancel(store, job.id, THEN) == first


def test_a_job_that_has_ended_is_not_touched(store, job):
    ended = job.patched({"status": "done", "finished_at": "2026-01-01T00:00:00Z"})
    store.commit((), (Put(keys.job(job.id), ended.to_json()),))
    with pytest.raises(ConflictError, match="has ended already") as caught:
        request_cancel(store, job.id, NOW)
    assert caught.value.reason == "already_finished"
    assert stored(store, job) == ended


def test_an_unknown_job_is_not_found(store):
    with pytest.raises(NotFoundError):
        request_cancel(store, new_id(), NOW)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_answer_is_settled_by_reading_again(store, job, moment):
    faulty = FaultyStore(store)
    faulty.fail(2, AmbiguousWriteError("the answer was lost"), moment=moment)
    assert request_cancel(faulty, job.id, NOW).is_cancel_requested
    assert stored(store, job).is_cancel_requested
