"""How many jobs there may be."""

from __future__ import annotations

import pytest

from lochness.errors import OverloadedError
from lochness.ids import new_id
from lochness.model.job import JobRecord
from lochness_controller.api.room import Room
from lochness_controller.workers.view import JobsView


def test_jobs_that_have_not_ended_are_counted_and_a_delete_is_refused_last():
    view = JobsView()
    room = Room(view, jobs_max=2)
    jobs = [JobRecord(id=new_id(), guest=new_id(), action="delete") for _ in range(4)]
    for revision, job in enumerate(jobs[:2], 1):
        room.require()
        view.learn(job, revision, revision)
    with pytest.raises(OverloadedError, match=r"2 jobs have not ended yet \(jobs_unfinished_max 2\)") as refusal:
        room.require()
    assert refusal.value.reason == "too_many_jobs"
    room.require(is_delete=True)
    for revision, job in enumerate(jobs[2:], 3):
        view.learn(job, revision, revision)
    with pytest.raises(OverloadedError):
        room.require(is_delete=True)
    for revision, job in enumerate(jobs[:3], 5):
        view.learn(job.patched({"status": "done"}), revision, 1)
    view.forget(jobs[3].id, 9)
    room.require()
