"""Which jobs begin, join and are forgotten; what the journal keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lochness.errors import UnavailableError
from lochness.identity import new_id
from lochness.model.job import rfc3339
from lochness_node.agent.jobs.decide import (
    ATTEMPTS_MAX,
    Entry,
    interrupted,
    is_resumed,
    job_to_join,
    jobs_to_begin,
    jobs_to_forget,
)
from lochness_node.agent.jobs.journal import JobJournal
from lochness_node.agent.wire import AGENT, AgentJob, JobStatus


def job(guest: str, action: str = "start", status: JobStatus = "Queued", id: str = "", image: str = "") -> AgentJob:
    return AgentJob(id=id or new_id(), guest_id=guest, action=action, queued_at="t", status=status, image_id=image)


def entry(job: AgentJob, number: int = 1, request: str = "") -> Entry:
    return Entry(job, number, request)


def test_one_job_of_a_guest_runs_and_guests_run_beside_each_other() -> None:
    a1, a2, b1, c1 = job("a"), job("a"), job("b"), job("c", status="Running")
    assert jobs_to_begin([c1, a1, a2, b1, job("c")], running_max=8) == (a1, b1)


def test_no_more_than_the_limit_run() -> None:
    jobs = [job("a", status="Running"), job("b"), job("c"), job("d")]
    assert jobs_to_begin(jobs, running_max=2) == (jobs[1],)
    assert jobs_to_begin(jobs, running_max=1) == ()


def test_images_have_lines_of_their_own() -> None:
    x1, x2, y = (job(AGENT, "fetchImage", image=image) for image in ("x", "x", "y"))
    assert jobs_to_begin([x1, x2, y], running_max=8) == (x1, y)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["Queued", "Running"])), max_size=30),
    st.integers(1, 5),
)
def test_what_begins_keeps_the_rules(jobs: list[tuple[str, JobStatus]], limit: int) -> None:
    seen: set[str] = set()
    unfinished = []
    for guest, status in jobs:  # only a line's first job can be running
        unfinished.append(job(guest, status=status if guest not in seen else "Queued"))
        seen.add(guest)
    running = [each for each in unfinished if each.status == "Running"]
    begun = jobs_to_begin(unfinished, limit)
    lines = [each.line for each in (*running, *begun)]
    assert len(lines) == len(set(lines))
    assert len(begun) <= max(0, limit - len(running))
    idle = {each.line for each in unfinished} - {each.line for each in running}
    assert len(begun) == min(len(idle), max(0, limit - len(running)))
    for each in begun:
        assert each is next(other for other in unfinished if other.line == each.line)


@pytest.mark.parametrize(
    ("under_way", "action", "joins"),
    [
        ([], "create", None),
        (["create"], "create", 0),
        (["create", "shutdown"], "create", 0),
        (["create", "delete"], "create", None),
        (["create", "delete", "create"], "create", 2),
        (["create", "delete"], "delete", 1),
        (["delete", "create"], "delete", None),
        (["start"], "start", 0),
        (["start", "shutdown"], "start", None),
        (["start", "shutdown"], "shutdown", 1),
    ],
)
def test_a_request_joins_a_job_after_which_it_would_change_nothing(
    under_way: list[str], action: str, joins: int | None
) -> None:
    jobs = [entry(job("a", each)) for each in under_way]
    others = [entry(job("b", action))]
    joined = job_to_join([*jobs, *others], entry(job("a", action)))
    assert joined is (jobs[joins].job if joins is not None else None)


def test_a_request_for_something_else_is_a_job_of_its_own() -> None:
    asked = entry(job("a", "create"), request='{"memory":64}')
    assert job_to_join([asked], entry(job("a", "create"), request='{"memory":128}')) is None
    assert job_to_join([asked], entry(job("a", "create"), request='{"memory":64}')) is asked.job


@pytest.mark.parametrize(
    ("status", "id", "then", "joins"),
    [
        ("Complete", "r1", [], True),
        ("Running", "r1", [], True),
        ("Error", "r1", [], False),
        ("Complete", "r2", [], False),
        ("Complete", "", [], False),
        ("Complete", "r1", ["start"], False),
    ],
)
def test_a_request_that_comes_again_is_done_once(status: JobStatus, id: str, then: list[str], joins: bool) -> None:
    done = msgspec.structs.replace(job("a", "reboot", status=status), request_id=id)
    asked = msgspec.structs.replace(job("a", "reboot"), request_id="r1" if id else "")
    later = [entry(job("a", each, status="Complete")) for each in then]
    assert (job_to_join([entry(done), *later], entry(asked)) is done) == joins


def test_only_the_oldest_finished_jobs_are_forgotten() -> None:
    jobs = [job("a", status=status) for status in ("Complete", "Running", "Error", "Queued", "Complete")]
    assert jobs_to_forget(jobs, kept_max=1) == (jobs[0], jobs[2])
    assert jobs_to_forget(jobs, kept_max=3) == ()


def test_an_interrupted_job_is_an_error_that_says_so() -> None:
    ended = interrupted(job("a", status="Running"), "now")
    assert (ended.status, ended.reason, ended.updated_at) == ("Error", "interrupted", "now")
    assert ended.message == "interrupted by a restart of the agent"


@pytest.mark.parametrize(
    ("action", "status", "attempts", "age_s", "resumed"),
    [
        ("create", "Running", 1, 10, True),
        ("create", "Queued", 0, 10, True),
        ("create", "Running", ATTEMPTS_MAX, 10, False),
        ("create", "Queued", ATTEMPTS_MAX, 10, True),
        ("delete", "Running", 1, 61, False),
        ("delete", "Queued", 0, -10, False),
        ("reboot", "Running", 1, 10, False),
        ("restart", "Running", 1, 10, False),
        ("reboot", "Queued", 0, 10, True),
    ],
)
def test_what_an_ended_agent_left_is_resumed_when_that_is_safe(
    action: str, status: JobStatus, attempts: int, age_s: float, resumed: bool
) -> None:
    queued = datetime(2026, 1, 2, tzinfo=UTC)
    left = msgspec.structs.replace(job("a", action, status=status), queued_at=rfc3339(queued), attempts=attempts)
    assert is_resumed(left, queued + timedelta(seconds=age_s), age_max_s=60) is resumed


def test_a_job_that_is_held_keeps_its_line_waiting() -> None:
    held, behind, other = job("a"), job("a"), job("b")
    assert jobs_to_begin([held, behind, other], 8, {held.id}) == (other,)


def test_the_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    journal = JobJournal(tmp_path / "jobs")
    first, second = entry(job("a"), 9, "{}"), entry(job("a"), 10, '{"secret":1}')
    journal.write(second)
    journal.write(first)
    assert journal.load() == ([first, second], [])
    ended = replace(first, job=msgspec.structs.replace(first.job, status="Complete", message="line\nline"))
    journal.write(ended)
    assert journal.load() == ([replace(ended, request=""), second], [])
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "jobs").iterdir()} == {0}
    journal.forget([ended.job])
    journal.forget([ended.job])
    assert journal.load() == ([second], [])


def test_the_journal_reports_what_it_cannot_read_and_passes_over_the_rest(tmp_path: Path) -> None:
    journal = JobJournal(tmp_path)
    kept, damaged, half = entry(job("a")), tmp_path / f"{new_id()}.json", tmp_path / f"{new_id()}.json.1.partial"
    journal.write(kept)
    damaged.write_text("[]")
    (tmp_path / "notes.json").write_text("{}")
    half.write_text("{")
    assert journal.load() == ([kept], [damaged])
    assert not half.exists()


def test_a_journal_that_cannot_write_says_so(tmp_path: Path) -> None:
    journal = JobJournal(tmp_path / "jobs")
    (tmp_path / "jobs").rmdir()
    with pytest.raises(UnavailableError, match="cannot record job"):
        journal.write(entry(job("a")))
    with pytest.raises(UnavailableError, match="cannot read the jobs' directory"):
        journal.load()
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot make the jobs' directory"):
        JobJournal(tmp_path / "file" / "jobs")
