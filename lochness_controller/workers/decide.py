"""Which jobs are taken up now? Decided from what is known of all jobs, pure.

Invariants:
1. At most one job of a guest is worked on at a time, the oldest unfinished one first.
2. A job that another running controller works on is left to it, and so are the later jobs of that guest.
3. One slow hypervisor takes at most `per_hypervisor` of the `running` places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lochness.model.job import SELECT_HYPERVISOR, JobRecord


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job as last seen in the store. Jobs were created in the order of `create_revision`."""

    job: JobRecord
    mod_revision: int
    create_revision: int


@dataclass(frozen=True, slots=True)
class Places:
    """How many jobs may be worked on at a time."""

    running: int
    per_hypervisor: int


def next_jobs(
    jobs: Iterable[KnownJob],
    busy: Mapping[str, str],
    *,
    worker: str,
    workers_alive: Collection[str],
    places: Places,
) -> tuple[KnownJob, ...]:
    """The jobs to take up, oldest first.

    `busy` are the guests that are worked on here, each with its job's hypervisor ("": none yet). `worker` is who asks,
    `workers_alive` every running controller. Jobs that wait for a hypervisor take no place: they are placed in batches.
    """
    free = places.running - sum(1 for hypervisor in busy.values() if hypervisor)
    on_hypervisor = Counter(hypervisor for hypervisor in busy.values() if hypervisor)
    taken: list[KnownJob] = []
    for known in first_of_each_guest(jobs):
        job = known.job
        if job.guest in busy or (job.worker not in ("", worker) and job.worker in workers_alive):
            continue
        if job.action != SELECT_HYPERVISOR:
            if free <= 0 or on_hypervisor[job.hypervisor] >= places.per_hypervisor:
                continue
            free -= 1
            if job.hypervisor:
                on_hypervisor[job.hypervisor] += 1
        taken.append(known)
    return tuple(taken)


def first_of_each_guest(jobs: Iterable[KnownJob]) -> tuple[KnownJob, ...]:
    """The oldest unfinished job of each guest, oldest first."""
    first: dict[str, KnownJob] = {}
    for known in sorted(jobs, key=lambda each: (each.create_revision, each.job.id)):
        if not known.job.is_finished:
            first.setdefault(known.job.guest, known)
    return tuple(first.values())
