"""R3: does a job get lost, or a guest doubled, when controllers are killed at any moment?

A controller on a fleet of simulated hypervisors is under load (creates, actions, deletes, requests to cancel) and is
killed with SIGKILL again and again, at a random moment after it listens; then the same with two controllers, of which
one is killed each time, on hypervisors that can not hold all guests in a network without addresses for all (R1). After
each kill `lochness.invariants` must find nothing. In the end every job that was acknowledged must have ended as done or
with an error that is true, and no guest may be on two hypervisors or be lost.

    make bench-R3            QUICK=1 for 10 kills; R3_KILLS=N for N
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from bench.controller import Controller
from bench.fleet import ADDRESSES, GUEST, HYPERVISOR, Fleet
from lochness import keys
from lochness.errors import LochnessError, NoCandidateError
from lochness.invariants import check
from lochness.jobs import request_cancel
from lochness.model.job import JobRecord
from lochness.model.resources import Resources
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import KeyValue, Prefix, Store
from lochness_lab.etcd import EtcdServer
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until

HYPERVISORS: Final = 12
CLIENTS: Final = 4
GUESTS_PER_CLIENT: Final = 12
KILLS: Final = 200
QUICK_KILLS: Final = 10
JOB_S: Final = 0.05
#: With two controllers: room for three guests on each hypervisor, addresses for fewer, and guests for more than both.
CROWDED: Final = Resources(memory=3 * GUEST.memory, disk=HYPERVISOR.disk, cpu=HYPERVISOR.cpu)
CROWDED_ADDRESSES: Final = 34
END_LIMIT_S: Final = 180.0
#: From the moment it listens to the kill: most of what it found is taken up and under way by then.
LIFE_MAX_S: Final = 1.2
#: So many of the kills are counted from its first acknowledged job on, for machines on which that takes its time.
WORKING_SHARE: Final = 0.8
WORKING_LIMIT_S: Final = 30.0
LEASE_TTL_S: Final = 5

#: What may truly go wrong with a job here, where no agent fails and there is room for all.
TRUE_REASONS: Final = frozenset(
    {
        *("cancelled", "not_found", "guest_not_found", "not_placed", "unexpected_http_code", "outcome_unknown"),
        "taken_up_too_often",
    }
)


@dataclass
class Found:
    """What a run saw."""

    kills: int = 0
    acknowledged: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Load:
    """Clients that ask for things, and note what was acknowledged."""

    def __init__(self, fleet: Fleet, store: Store, urls: list[str]) -> None:
        self._fleet = fleet
        self._store = store
        self._urls = urls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        #: The ids of the jobs that a controller has acknowledged.
        self.acknowledged: set[str] = set()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for_more(self, limit_s: float) -> None:
        """Return when something more was acknowledged, after `limit_s` in any case."""
        before, deadline_s = len(self.acknowledged), time.monotonic() + limit_s
        while len(self.acknowledged) == before and time.monotonic() < deadline_s:
            self._stopping.wait(0.02)

    def _run(self, number: int) -> None:
        dice = random.Random(number)
        guests: list[str] = []
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not self._stopping.is_set():
                url = dice.choice(self._urls)
                try:
                    self._ask(client, url, guests, dice)
                except httpx.HTTPError:
                    self._stopping.wait(0.1)  # killed, perhaps in the middle of our request: not acknowledged

    def _ask(self, client: httpx.Client, url: str, guests: list[str], dice: random.Random) -> None:
        if len(guests) < GUESTS_PER_CLIENT:
            body = {"flavor": self._fleet.flavor, "network": self._fleet.network}
            answer = client.post(f"{url}/guests", json=body)
            if answer.status_code == 202:
                guests.append(answer.json()["id"])
        else:
            guest = dice.choice(guests)
            if dice.random() < 0.5:
                answer = client.delete(f"{url}/guests/{guest}")
                guests.remove(guest)
            else:
                action = dice.choice(("reboot", "shutdown", "start", "suspend", "resume"))
                answer = client.post(f"{url}/guests/{guest}/{action}")
        if answer.status_code == 202:
            job = answer.headers["X-Guest-Job-ID"]
            with self._lock:
                self.acknowledged.add(job)
            if dice.random() < 0.05:
                self._cancel(job)

    def _cancel(self, job: str) -> None:
        try:
            request_cancel(self._store, job, wall_clock())
        except LochnessError:
            return  # it has ended already


def wall_clock() -> datetime:
    return datetime.now(UTC)


def run(kills: int, controllers: int, tell: bool = True) -> Found:
    """Kill so often, with so many controllers at once."""
    found, dice = Found(), random.Random(kills * 10 + controllers)
    is_crowded = controllers > 1
    room, addresses = (CROWDED, CROWDED_ADDRESSES) if is_crowded else (HYPERVISOR, ADDRESSES)
    with (
        tempfile.TemporaryDirectory(prefix="lochness-r3-") as directory,
        EtcdServer(Path(directory) / "etcd") as etcd,
        EtcdStore([etcd.url], timeout_s=30) as store,
        Fleet(store, HYPERVISORS, total=room, addresses=addresses, job_s=JOB_S, minimal_every=3) as fleet,
    ):
        settings = {"lease_ttl_s": LEASE_TTL_S, "etcd_timeout_s": LEASE_TTL_S / 2}
        running = [Controller(Path(directory), etcd.url, **settings) for _ in range(controllers)]
        load = Load(fleet, store, [controller.url for controller in running])
        try:
            for controller in running:
                controller.start()
            with load:
                for number in range(1, kills + 1):
                    if dice.random() < WORKING_SHARE:
                        load.wait_for_more(WORKING_LIMIT_S)
                    threading.Event().wait(dice.uniform(0, LIFE_MAX_S))
                    victim = dice.choice(running)
                    victim.kill()
                    found.kills = number
                    found.violations += broken(store.read(Prefix(keys.ROOT)).ranges[0])
                    victim.start()
                    if tell and number % 20 == 0:
                        print(f"R3: {number} of {kills} kills, {len(load.acknowledged)} jobs acknowledged", flush=True)
            wait_until(lambda: not unfinished(store), limit_s=END_LIMIT_S, what="end of every job")
        except LochnessError as error:
            found.violations.append(f"{error.message}: {unfinished(store)[:3]}")
        finally:
            for controller in running:
                controller.kill()
        found.acknowledged = len(load.acknowledged)
        true_reasons = TRUE_REASONS | {NoCandidateError.reason} if is_crowded else TRUE_REASONS
        look(found, store.read(Prefix(keys.ROOT)).ranges[0], fleet, load.acknowledged, true_reasons)
    return found


def unfinished(store: Store) -> list[JobRecord]:
    """The jobs that have not ended."""
    jobs = (JobRecord.from_json(item.value) for item in store.read(Prefix(keys.JOB_PATH)).ranges[0])
    return [job for job in jobs if not job.is_finished]


def broken(items: Iterable[KeyValue]) -> list[str]:
    """The promises that `items`, all keys of one revision, break: hosts overcommitted, addresses given twice ..."""
    return [f"{violation.kind}: {violation.text}" for violation in check(items)]


def look(
    found: Found, items: tuple[KeyValue, ...], fleet: Fleet, acknowledged: set[str], true_reasons: frozenset[str]
) -> None:
    """Add what is wrong to `found.violations`."""
    jobs = {
        job.id: job for item in items if item.key.startswith(keys.JOB_PATH) for job in [JobRecord.from_json(item.value)]
    }
    wrong = found.violations
    wrong += broken(items)
    wrong += [f"job {id} was acknowledged and is gone" for id in acknowledged - jobs.keys()]
    for job in jobs.values():
        found.ends[job.reason if job.status == "error" else job.status] += 1
        if not job.is_finished:
            wrong.append(f"job {job.id} ({job.request}) has not ended: {job.status}, {job.action}")
        elif job.status == "error" and (not job.error or job.reason not in true_reasons):
            wrong.append(f"job {job.id} ({job.request}) ended with {job.reason!r}: {job.error}")
    wrong += list(wrong_guests(items, fleet, list(jobs.values())))
    wrong += list(done_twice(fleet.agents.values(), jobs))


def wrong_guests(items: tuple[KeyValue, ...], fleet: Fleet, jobs: list[JobRecord]) -> Iterator[str]:
    """Guests that are on two hypervisors, where they do not belong, or nowhere although their create is done."""
    bound: dict[str, list[str]] = {}
    for item in items:
        parts = item.key.split("/")
        if parts[1::2] == ["hypervisors", "guests"]:
            bound.setdefault(parts[4], []).append(parts[2])
    there = fleet.guests()
    for guest, hypervisors in there.items():
        if len(hypervisors) > 1:
            yield f"guest {guest} is on {len(hypervisors)} hypervisors: {hypervisors}"
        elif bound.get(guest) != hypervisors and not was_cut_short(guest, jobs):
            yield f"guest {guest} is on {hypervisors}, bound to {bound.get(guest, [])}"
    created = {job.guest for job in jobs if job.request == "create" and job.status == "done"}
    refused = {job.guest for job in jobs if job.reason == NoCandidateError.reason}
    for guest in refused & (there.keys() | bound.keys()):
        yield f"guest {guest} was refused and is there or bound"
    deleted = {job.guest for job in jobs if job.request == "delete"}
    for guest in created - deleted:
        if guest not in there or guest not in bound:
            yield f"guest {guest} was created and is lost"
    for job in jobs:
        if job.request == "delete" and job.status == "done" and (job.guest in there or job.guest in bound):
            yield f"guest {job.guest} was deleted and is still there"


def was_cut_short(guest: str, jobs: list[JobRecord]) -> bool:
    """Whether a job of the guest says that what it asked for goes on by itself."""
    return any(job.guest == guest and job.status == "error" and "by itself" in job.error for job in jobs)


def done_twice(agents: Iterable[FakeAgent], jobs: dict[str, JobRecord]) -> Iterator[str]:
    """Reboots that an agent was asked for more than once."""
    asked = Counter(
        each.request_id for agent in agents for each in agent.requests if each.path.endswith(("/reboot", "/restart"))
    )
    for id, count in asked.items():
        if count > 1 and id in jobs:
            yield f"job {id} asked {count} times for a {jobs[id].request}"


def main() -> None:
    kills = QUICK_KILLS if os.environ.get("QUICK") else KILLS
    kills = int(os.environ.get("R3_KILLS") or kills)
    print(
        f"R3: {kills} kills, half with one controller and half with two, {HYPERVISORS} hypervisors, {CLIENTS} clients"
    )
    began_s = time.monotonic()
    alone, paired = run(kills - kills // 2, 1), run(kills // 2, 2)
    violations = [*alone.violations, *paired.violations]
    for kind, count in Counter(text.partition(":")[0] for text in violations).most_common(20):
        print(f"R3: {count} x {kind}")
    for text in violations[:20]:
        print(f"R3: {text}")
    ends = alone.ends + paired.ends
    shown = " ".join(f"{end or 'none'}={count}" for end, count in sorted(ends.items()))
    print(
        f"R3 value={len(violations)} unit=violations kills={alone.kills + paired.kills} "
        f"acknowledged={alone.acknowledged + paired.acknowledged} jobs={ends.total()} {shown} "
        f"seconds={time.monotonic() - began_s:.0f}"
    )
    raise SystemExit(1 if violations else 0)


if __name__ == "__main__":
    main()
