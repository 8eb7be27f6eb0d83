"""R1 at library level: do racing callers ever overcommit a host, give an address twice or lose an acknowledged
placement?

Eight processes call `Hypervisor.add_guest` on one etcd, 100,000 times in all, on hosts and subnets that cannot hold
them all; now and then they take a guest off again, so that the race never ends. Then `lochness.invariants` looks at
everything.

    make bench-R1            QUICK=1 for 3,000 calls
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final, TypeAlias

from lochness import keys
from lochness.context import Context
from lochness.entities.guest import Guest
from lochness.errors import ConflictError, NoCandidateError
from lochness.invariants import check
from lochness.model.resources import Resources
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Operation, Prefix, Put
from lochness_lab.etcd import EtcdServer

Results: TypeAlias = "multiprocessing.Queue[tuple[Counter[str], set[str]]]"

PROCESSES: Final = 8
HYPERVISORS: Final = 40
#: Memory for so many guests of 64 MB on each host; the narrow subnet has addresses for a third of them.
PLACES: Final = 50
GUEST_MB: Final = 64
REMOVED_SHARE: Final = 0.3
PROCESS_LIMIT_S: Final = 3600
PUTS_PER_TRANSACTION: Final = 120


@dataclass(frozen=True)
class Race:
    """What a run saw: how the calls ended, what `lochness.invariants` found, and how long the racing took."""

    outcomes: Counter[str]
    violations: int
    lost: int
    seconds: float

    @property
    def calls(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome != "removed")


def run(calls: int, *, processes: int = PROCESSES, hypervisors: int = HYPERVISORS) -> Race:
    """Race on an etcd of its own and look at what is left."""
    with tempfile.TemporaryDirectory(prefix="lochness-r1-") as directory, EtcdServer(Path(directory)) as server:
        with EtcdStore([server.url]) as store:
            context = Context(store)
            guests = prepare(context, calls, hypervisors)
        started = time.perf_counter()
        spawn = multiprocessing.get_context("spawn")
        results = spawn.Queue()
        racers = [
            spawn.Process(target=race, args=(server.url, guests[number::processes], number, results), daemon=True)
            for number in range(processes)
        ]
        for racer in racers:
            racer.start()
        outcomes: Counter[str] = Counter()
        acknowledged: set[str] = set()
        for counted, placed in gather(results, racers):
            outcomes += counted
            acknowledged |= placed
        seconds = time.perf_counter() - started
        with EtcdStore([server.url], timeout_s=60) as store:
            items = store.read(Prefix(keys.ROOT)).ranges[0]
    bound = {keys.last_part(item.key) for item in items if item.key.split("/")[1::2] == ["hypervisors", "guests"]}
    return Race(outcomes, len(check(items)), len(acknowledged ^ bound), seconds)


def gather(results: Results, racers: Sequence[SpawnProcess]) -> Iterator[tuple[Counter[str], set[str]]]:
    """What each racer reports. Raises SystemExit when one ends without a report, or none comes within the limit."""
    deadline_s = time.monotonic() + PROCESS_LIMIT_S
    missing = len(racers)
    while missing:
        try:
            yield results.get(timeout=1)
            missing -= 1
        except queue.Empty:
            broken = [racer.pid for racer in racers if racer.exitcode not in (None, 0)]
            if broken or time.monotonic() > deadline_s:
                raise SystemExit(f"R1: {missing} racer(s) without a report; ended with an error: {broken}") from None
    for racer in racers:
        racer.join(timeout=30)


def prepare(context: Context, guests: int, hypervisors: int) -> list[str]:
    """Hosts, two networks of one subnet each, a flavor, and `guests` guests that want a place; answers their ids."""
    image, flavor = context.new_image(), context.new_flavor()
    image.source = "https://images.example.org/small.qcow2"
    flavor.image, flavor.memory, flavor.disk, flavor.cpu = image.id, GUEST_MB, 100, 1
    image.save()
    flavor.save()
    narrow = add_network(context, "10.1.0.0/16", "10.1.0.1", addresses_end(narrow_size(hypervisors)))
    wide = add_network(context, "10.2.0.0/16", "10.2.0.1", "10.2.255.0")
    for _ in range(hypervisors):
        hypervisor = context.new_hypervisor()
        hypervisor.total_resources = Resources(memory=GUEST_MB * PLACES, disk=1_000_000, cpu=1000)
        hypervisor.save()
        hypervisor.map_subnets({subnet: "br0" for _, subnet in (narrow, wide)})
    ids, puts = [], list[Operation]()
    for number in range(guests):
        guest = context.new_guest()
        guest.flavor, guest.network = flavor.id, (narrow, wide)[number % 2][0]
        ids.append(guest.id)
        puts.append(Put(keys.guest(guest.id), guest.to_json()))
    for start in range(0, len(puts), PUTS_PER_TRANSACTION):
        context.store.commit((), puts[start : start + PUTS_PER_TRANSACTION])
    random.Random(0).shuffle(ids)
    return ids


def narrow_size(hypervisors: int) -> int:
    """How many addresses the narrow subnet has."""
    return hypervisors * PLACES // 3


def add_network(context: Context, cidr: str, start: str, end: str) -> tuple[str, str]:
    """The ids of a network and of its one subnet."""
    network, subnet = context.new_network(), context.new_subnet()
    subnet.cidr, subnet.start, subnet.end = cidr, start, end
    network.save()
    subnet.save()
    network.add_subnet(subnet)
    return network.id, subnet.id


def addresses_end(count: int) -> str:
    """The last address of a range of this many that begins at 10.1.0.1."""
    high, low = divmod(count, 256)
    return f"10.1.{high}.{low}"


def race(url: str, guest_ids: list[str], seed: int, results: Results) -> None:
    """One process's share of the calls."""
    dice = random.Random(seed)
    outcomes: Counter[str] = Counter()
    placed: dict[str, Guest] = {}
    with EtcdStore([url], timeout_s=30) as store:
        context = Context(store)
        hypervisors = list(context.hypervisors())
        for guest_id in guest_ids:
            guest = context.guest(guest_id)
            try:
                dice.choice(hypervisors).add_guest(guest)
            except NoCandidateError:
                outcomes["refused"] += 1
            except ConflictError as error:
                outcomes[error.reason] += 1
            else:
                outcomes["placed"] += 1
                placed[guest_id] = guest
            if placed and dice.random() < REMOVED_SHARE:
                leaving = placed.pop(dice.choice(list(placed)))
                context.hypervisor(leaving.hypervisor).remove_guest(leaving)
                outcomes["removed"] += 1
    results.put((outcomes, set(placed)))


def main() -> None:
    calls = 3_000 if os.environ.get("QUICK") else 100_000
    print(
        f"R1: {PROCESSES} processes, {calls} calls of add_guest, {HYPERVISORS} hosts of {PLACES} places, "
        f"{narrow_size(HYPERVISORS)} addresses for every other guest"
    )
    found = run(calls)
    shown = " ".join(f"{outcome}={count}" for outcome, count in sorted(found.outcomes.items()))
    print(
        f"R1 value={found.violations + found.lost} unit=violations calls={found.calls} lost={found.lost} {shown} "
        f"seconds={found.seconds:.1f} calls_per_s={found.calls / found.seconds:.0f}"
    )
    raise SystemExit(1 if found.violations or found.lost else 0)


if __name__ == "__main__":
    main()
