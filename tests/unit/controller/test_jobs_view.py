"""What is known of jobs, when readings, the watch and this process's own writes come in any order."""

from __future__ import annotations

from typing import Literal

from lochness import keys
from lochness.ids import new_id
from lochness.model.job import JobRecord
from lochness.store.protocol import Change, KeyValue, Reading, WatchBatch
from lochness_controller.workers.view import JobsView


def job_of(status: Literal["new", "done"] = "new") -> JobRecord:
    return JobRecord(id=new_id(), guest=new_id(), action="delete", status=status)


def reading(revision: int, *items: tuple[JobRecord, int]) -> Reading:
    return Reading(revision, (tuple(KeyValue(keys.job(job.id), job.to_json(), 1, at) for job, at in items),))


def test_what_this_process_wrote_after_a_reading_is_kept_and_forgotten_when_the_next_reading_has_it_not():
    view, told = JobsView(), list[str]()
    view.on_change(told.extend)
    view.take_snapshot(reading(10))
    job = job_of()
    view.learn(job, 12, 12)
    view.take_snapshot(reading(11))  # was read before the write, and is handed over after it
    known = view.known(job.id)
    assert known is not None
    assert known.mod_revision == 12
    # The store went back between 11 and 12, unseen by the watch: a reading that has it not, twice, is the truth.
    told.clear()
    view.take_snapshot(reading(11))
    assert view.jobs() == ()
    assert told == [job.id]


def test_a_store_that_went_back_is_believed_at_once():
    view, told = JobsView(), list[str]()
    gone, back, unchanged = job_of("done"), job_of("done"), job_of()
    view.take_snapshot(reading(10, (unchanged, 3)))
    changes = tuple(Change(keys.job(job.id), job.to_json(), 20 + at, 20) for at, job in enumerate((gone, back)))
    view.take_batch(WatchBatch(30, changes))
    view.on_change(told.extend)
    before = back.patched({"status": "working"})
    view.take_snapshot(reading(15, (unchanged, 3), (before, 14)))
    assert {known.job.id: known.mod_revision for known in view.jobs()} == {unchanged.id: 3, back.id: 14}
    assert set(told) == {gone.id, back.id, unchanged.id}
    known = view.known(back.id)
    assert known is not None
    assert known.job.status == "working"


def test_of_a_job_that_has_ended_only_what_decides_is_kept():
    view = JobsView()
    whole = job_of("done").with_fields(explanation={"best": ["x" * 1000]}, finished_at="2026-01-01T00:00:00.000000Z")
    working = job_of().with_fields(status="working", explanation={"best": []}, worker="me")
    view.take_snapshot(reading(10, (whole, 3), (working, 4)))
    kept = {known.job.id: known.job for known in view.jobs()}
    assert kept[working.id] == working
    assert (kept[whole.id].is_finished, kept[whole.id].finished_at) == (True, whole.finished_at)
    for told in (whole, working.with_fields(status="error", explanation=whole.explanation)):
        view.learn(told, 12, 3)
        known = view.known(told.id)
        assert known is not None
        assert (known.job.status, known.job.explanation, known.mod_revision) == (told.status, {}, 12)


def test_a_job_that_ended_is_taken_over_once_unless_the_store_went_back():
    view, ended = JobsView(), job_of("done")
    view.take_snapshot(reading(10, (ended, 3)))
    first = view.known(ended.id)
    view.take_snapshot(reading(11, (ended, 3)))
    assert view.known(ended.id) is first
    view.take_snapshot(reading(12, (ended.patched({"status": "error"}), 12)))
    known = view.known(ended.id)
    assert known is not None
    assert known.job.status == "error"
    # Another store, where the same revision is another write.
    view.take_snapshot(reading(11, (ended.patched({"status": "working"}), 12)))
    known = view.known(ended.id)
    assert known is not None
    assert known.job.status == "working"
