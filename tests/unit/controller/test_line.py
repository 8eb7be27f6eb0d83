"""Which jobs are taken up (lochness_controller.workers.decide)."""

from __future__ import annotations

from lochness.model.job import JobRecord
from lochness_controller.workers.decide import KnownJob, Line, Places

PLACES = Places(running=10, per_hypervisor=2)
ME, OTHER, DEAD = "me", "other", "dead"
STALE_S = 10.0


def uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def known(
    number: int, guest: int, action: str = "start", *, status="new", worker="", hypervisor="h", revision=0
) -> KnownJob:
    job = JobRecord(
        id=uid(number), guest=uid(guest), action=action, status=status, worker=worker, hypervisor=hypervisor
    )
    return KnownJob(job, mod_revision=revision or 100 + number, create_revision=number)


def line_of(*jobs: KnownJob, places=PLACES, is_leader=True) -> Line:
    line = Line(ME, places, stale_s=STALE_S)
    line.set_workers({ME, OTHER}, is_leader=is_leader)
    for each in jobs:
        line.put(each, 0.0)
    return line


def taken(line: Line) -> list[int]:
    return [number_of(entry) for entry in line.take()]


def placing(line: Line, limit: int = 100) -> list[int]:
    return [number_of(entry) for entry in line.take_waiting(limit)]


def number_of(entry: KnownJob) -> int:
    return int(entry.job.id[-4:])


def test_the_oldest_unfinished_job_of_each_guest_is_taken():
    line = line_of(known(1, 1, status="done"), known(4, 1), known(2, 1), known(3, 2))
    assert sorted(taken(line)) == [2, 3]
    assert taken(line) == []


def test_a_guests_next_job_begins_when_the_last_one_has_ended_and_the_guest_is_free():
    line = line_of(known(1, 1), known(2, 1))
    assert taken(line) == [1]
    line.put(known(1, 1, status="done", revision=500), 1.0)
    assert taken(line) == []
    line.free(uid(1), 1.0)
    assert taken(line) == [2]


def test_a_job_that_is_set_free_unfinished_is_taken_again():
    line = line_of(known(1, 1))
    assert taken(line) == [1]
    line.free(uid(1), 1.0)
    assert taken(line) == [1]


def test_a_guest_that_rests_is_not_taken_before_it_is_woken():
    line = line_of(known(1, 1), known(2, 2))
    assert sorted(taken(line)) == [1, 2]
    line.free(uid(1), 1.0, is_resting=True)
    assert taken(line) == []
    line.wake(uid(1), 3.0)
    assert taken(line) == [1]


def test_a_job_is_as_it_was_told_last_also_in_a_store_that_went_back():
    line = line_of(known(1, 1, worker=OTHER, status="working", revision=300))
    line.put(known(1, 1, revision=200), 1.0)
    assert taken(line) == [1]


def test_a_job_of_another_running_controller_holds_the_guests_later_jobs():
    line = line_of(known(1, 1, status="working", worker=OTHER), known(2, 1))
    assert taken(line) == []
    line.put(known(1, 1, status="done", worker=OTHER, revision=300), 1.0)
    assert taken(line) == [2]


def test_a_dead_controllers_job_and_ones_own_are_taken_up_again():
    line = line_of(known(1, 1, status="working", worker=DEAD), known(2, 2, status="working", worker=ME))
    assert sorted(taken(line)) == [1, 2]


def test_what_another_controller_worked_on_is_taken_up_when_that_is_gone():
    line = line_of(known(1, 1, status="working", worker=OTHER), known(2, 2, "select-hypervisor"), is_leader=False)
    assert (taken(line), placing(line)) == ([], [])
    line.set_workers({ME}, is_leader=True)
    assert (taken(line), placing(line)) == ([1], [2])


def test_a_new_job_is_the_leaders_until_it_has_left_it_lying():
    line = line_of(is_leader=False)
    line.put(known(1, 1), 0.0)
    line.put(known(2, 2, "select-hypervisor"), 5.0)
    line.adopt_stale(9.0)
    assert (taken(line), placing(line)) == ([], [])
    line.adopt_stale(11.0)
    assert (taken(line), placing(line)) == ([1], [])
    line.adopt_stale(16.0)
    assert (taken(line), placing(line)) == ([], [2])


def test_one_hypervisor_does_not_take_all_places():
    slow = [known(number, number, hypervisor="slow") for number in range(1, 6)]
    line = line_of(*slow, known(9, 9, hypervisor="quick"))
    assert sorted(taken(line)) == [1, 2, 9]
    line.put(known(1, 1, hypervisor="slow", status="done", revision=500), 1.0)
    line.free(uid(1), 1.0)
    assert taken(line) == [3]


def test_hypervisors_take_turns():
    jobs = [known(number, number, hypervisor="a" if number < 4 else "b") for number in range(1, 7)]
    assert taken(line_of(*jobs, places=Places(running=4, per_hypervisor=9))) == [1, 4, 2, 5]


def test_no_more_than_the_places_there_are():
    jobs = [known(number, number, hypervisor=f"h{number}") for number in range(1, 6)]
    line = line_of(*jobs, places=Places(running=3, per_hypervisor=9))
    assert taken(line) == [1, 2, 3]
    line.free(uid(2), 1.0, is_resting=True)
    assert taken(line) == [4]


def test_a_slow_hypervisor_gets_one_job_at_a_time_and_takes_no_place_from_others():
    slow = [known(number, number, hypervisor="slow") for number in range(1, 5)]
    quick = [known(number, number, hypervisor="quick") for number in range(5, 8)]
    line = line_of(*slow, *quick, places=Places(running=2, per_hypervisor=2))
    assert taken(line) == [1, 5]
    line.set_slow("slow", True)
    assert taken(line) == [6]
    line.free(uid(1), 1.0, is_resting=True)
    line.free(uid(6), 1.0, is_resting=True)
    assert sorted(taken(line)) == [2, 7]
    line.set_slow("slow", False)
    assert taken(line) == []
    line.free(uid(7), 1.0, is_resting=True)
    assert taken(line) == []  # 2 and 5 are worked on, and count both again
    line.free(uid(5), 1.0, is_resting=True)
    assert taken(line) == [3]


def test_waiting_for_a_hypervisor_takes_no_place():
    jobs = [known(number, number, "select-hypervisor", hypervisor="") for number in range(1, 6)]
    line = line_of(*jobs, places=Places(running=1, per_hypervisor=1))
    assert placing(line, 3) == [1, 2, 3]
    assert placing(line) == [4, 5]
    line.put(known(1, 1, "fetch", status="working", worker=ME, revision=500), 1.0)
    line.free(uid(1), 1.0)
    assert taken(line) == [1]


def test_guests_that_were_never_placed_are_bounded_by_all_places_only():
    jobs = [known(number, number, "delete", hypervisor="") for number in range(1, 6)]
    assert len(taken(line_of(*jobs))) == 5


def test_a_job_that_is_not_begun_for_too_long_is_told_once_in_that_time():
    line = line_of(*(known(number, number) for number in range(1, 4)), known(8, 8, worker=OTHER, status="working"))
    assert sorted(taken(line)) == [1, 2]
    assert line.too_long(9.0, 10.0) == []
    assert [number_of(each) for each in line.too_long(10.0, 10.0)] == [3]
    assert line.too_long(11.0, 10.0) == []
    assert [number_of(each) for each in line.too_long(20.0, 10.0)] == [3]


def test_a_job_that_is_gone_leaves_nothing():
    line = line_of(known(1, 1), known(2, 2, "select-hypervisor"))
    line.drop(uid(1))
    line.drop(uid(2))
    assert (len(line), taken(line), placing(line)) == (0, [], [])
    assert line.too_long(100.0, 10.0) == []
