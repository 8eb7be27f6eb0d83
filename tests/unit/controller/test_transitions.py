"""What a job says after what happened to it (lochness_controller.workers.transitions)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lochness.model.job import UNSET_TIME, JobRecord
from lochness_controller.workers.transitions import (
    accepted,
    claimed,
    done,
    failed,
    moved_on,
    placed,
    undoing,
    undone,
    waiting,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
GUEST = "00000000-0000-4000-8000-000000000001"
JOB = "00000000-0000-4000-8000-000000000002"


def after(seconds: int) -> datetime:
    return T0 + timedelta(seconds=seconds)


def new_job(action: str = "select-hypervisor") -> JobRecord:
    return JobRecord(id=JOB, guest=GUEST, action=action)


def test_a_create_tells_every_step():
    job = placed(new_job(), "hv", "fetch", "me", after(1), {"chosen": "hv"})
    assert (job.status, job.action, job.worker, job.hypervisor) == ("working", "fetch", "me", "hv")
    job = accepted(job, "r1")
    assert job.remote == "r1"
    job = moved_on(job, "create", after(2), message="the image is there")
    assert (job.action, job.remote) == ("create", "")
    job = done(accepted(job, "r2"), after(3))
    assert [(step.action, step.message) for step in job.steps] == [
        ("select-hypervisor", "placed on hypervisor hv"),
        ("fetch", "the image is there"),
        ("create", ""),
    ]
    assert (job.status, job.started_at, job.finished_at) == (
        "done",
        "2026-01-01T00:00:01.000000Z",
        "2026-01-01T00:00:03.000000Z",
    )


def test_a_job_that_is_taken_over_keeps_when_it_began():
    first = claimed(new_job("reboot"), "me", after(1))
    again = claimed(first, "other", after(9))
    assert (again.worker, again.started_at, again.steps) == ("other", first.started_at, first.steps)


def test_a_failure_is_one_line_and_sets_both_times():
    job = failed(new_job(), "no\n  candidate:\twanted 2", "no_candidate", after(4), explanation={"refused": "x"})
    assert (job.status, job.error, job.reason) == ("error", "no candidate: wanted 2", "no_candidate")
    assert UNSET_TIME not in (job.started_at, job.finished_at)
    assert job.explanation == {"refused": "x"}


def test_why_a_step_waits_is_no_news_of_the_next_one():
    job = waiting(placed(new_job(), "hv", "fetch", "me", after(1), {}), "no\nanswer")
    assert job.progress == "no answer"
    assert waiting(job, "").progress == ""
    failing = undoing(job, "no", "r", after(2))
    ends = (
        moved_on(job, "create", after(2)),
        failing,
        undone(waiting(failing, "x"), "gone", after(3)),
        done(job, after(2)),
        failed(job, "no", "r", after(2)),
    )
    assert [each.progress for each in ends] == [""] * 5


def test_what_another_version_wrote_is_kept():
    job = JobRecord.from_fields({**new_job("start").to_fields(), "invented_later": 1})
    assert done(claimed(job, "me", T0), T0).to_fields()["invented_later"] == 1
