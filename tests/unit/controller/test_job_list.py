"""Jobs are listed newest first, whatever the order in which they were read and changed."""

from __future__ import annotations

import msgspec

from lochness import keys
from lochness.ids import new_id
from lochness.model.job import JobRecord
from lochness.store.protocol import Change, KeyValue
from lochness_controller.api.job_list import JobList

ONE, OTHER = new_id(), new_id()
JOBS = [JobRecord(id=new_id(), guest=guest, action="start") for guest in (ONE, OTHER, ONE, OTHER)]


def listed(jobs: JobList, guest: str = "", limit: int = 100) -> list[tuple[str, str]]:
    found = [msgspec.json.decode(record, type=JobRecord) for record in jobs.newest(guest, limit)]
    return [(job.id, job.status) for job in found]


def read(*numbers: int) -> JobList:
    items = [KeyValue(keys.job(JOBS[each].id), JOBS[each].to_json(), each + 1, each + 1) for each in numbers]
    return JobList(sorted(items, key=lambda item: item.key))


def change(job: JobRecord, revision: int) -> Change:
    return Change(keys.job(job.id), job.to_json(), revision, revision)


def test_they_stand_in_the_order_of_their_creation_of_one_guest_and_bounded() -> None:
    jobs = read(0, 1, 2, 3)
    newest_first = [(job.id, "new") for job in reversed(JOBS)]
    assert listed(jobs) == newest_first
    assert listed(jobs, limit=2) == newest_first[:2]
    assert listed(jobs, ONE) == [newest_first[1], newest_first[3]]
    assert listed(jobs, ONE, limit=1) == [newest_first[1]]
    assert listed(jobs, new_id()) == []


def test_a_change_leaves_a_job_at_its_place_and_what_is_new_comes_first() -> None:
    jobs = read(0, 1, 2)
    jobs.apply(
        (
            change(JOBS[0].patched({"status": "done"}), 10),
            Change(keys.job(JOBS[1].id), None, 11),
            change(JOBS[3], 12),
            Change(keys.guest(ONE), b"{}", 13, 13),
        )
    )
    assert listed(jobs) == [(JOBS[3].id, "new"), (JOBS[2].id, "new"), (JOBS[0].id, "done")]


def test_what_can_not_be_read_hides_no_other() -> None:
    jobs = read(0)
    jobs.apply((Change(keys.job(new_id()), b"\xff", 20, 20), Change(keys.job(new_id()), b"[]", 21, 21)))
    assert listed(jobs) == [(JOBS[0].id, "new")]


def test_a_reading_takes_the_place_of_all() -> None:
    jobs = read(0, 1)
    jobs.replace(read(2, 3))
    assert listed(jobs) == [(JOBS[3].id, "new"), (JOBS[2].id, "new")]
