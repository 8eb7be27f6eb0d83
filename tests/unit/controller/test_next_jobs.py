"""Which jobs are taken up (lochness_controller.workers.decide)."""

from __future__ import annotations

from lochness.model.job import JobRecord
from lochness_controller.workers.decide import KnownJob, Places, next_jobs

PLACES = Places(running=10, per_hypervisor=2)
ME, OTHER, DEAD = "me", "other", "dead"


def uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def known(number: int, guest: int, action: str = "start", *, status="new", worker="", hypervisor="") -> KnownJob:
    job = JobRecord(
        id=uid(number), guest=uid(guest), action=action, status=status, worker=worker, hypervisor=hypervisor
    )
    return KnownJob(job, mod_revision=100 + number, create_revision=number)


def taken(jobs, busy=None, places=PLACES):
    found = next_jobs(jobs, busy or {}, worker=ME, workers_alive={ME, OTHER}, places=places)
    return [int(entry.job.id[-4:]) for entry in found]


def test_the_oldest_unfinished_job_of_each_guest_is_taken_oldest_first():
    jobs = [known(4, 1), known(2, 1), known(3, 2), known(1, 1, status="done")]
    assert taken(jobs) == [2, 3]


def test_a_busy_guest_waits():
    assert taken([known(1, 1), known(2, 2)], {uid(1): ""}) == [2]


def test_finished_jobs_are_not_taken():
    assert taken([known(1, 1, status="done"), known(2, 2, status="error")]) == []


def test_a_job_of_another_running_controller_holds_the_guests_later_jobs():
    assert taken([known(1, 1, status="working", worker=OTHER), known(2, 1)]) == []


def test_a_dead_controllers_job_and_ones_own_are_taken_up_again():
    jobs = [known(1, 1, status="working", worker=DEAD), known(2, 2, status="working", worker=ME)]
    assert taken(jobs) == [1, 2]


def test_one_hypervisor_does_not_take_all_places():
    slow = [known(number, number, hypervisor="slow") for number in range(1, 6)]
    assert taken([*slow, known(9, 9, hypervisor="quick")]) == [1, 2, 9]
    assert taken([*slow, known(9, 9, hypervisor="quick")], {uid(1): "slow", uid(2): "slow"}) == [9]


def test_no_more_than_the_places_there_are():
    jobs = [known(number, number, hypervisor=f"h{number}") for number in range(1, 6)]
    assert taken(jobs, places=Places(running=3, per_hypervisor=9)) == [1, 2, 3]
    assert taken(jobs, {uid(1): "h1", uid(2): "h2"}, Places(running=3, per_hypervisor=9)) == [3]


def test_waiting_for_a_place_takes_no_place():
    jobs = [known(number, number, "select-hypervisor") for number in range(1, 6)]
    assert taken(jobs, places=Places(running=1, per_hypervisor=1)) == [1, 2, 3, 4, 5]
