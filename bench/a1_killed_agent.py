"""A1: what does an agent that is killed at random moments leave behind?

An agent creates and deletes guests on the test driver of a libvirtd of its own, whose domains outlive it. Again and
again it is asked for some of both and killed (SIGKILL) a random moment later. In the end every job that it had accepted
must be known and ended, and of every guest there must be all or nothing. Counted as violations:

- a job that was accepted and is not known, or has not ended;
- a guest whose last job is a complete create and that does not run on its disk;
- a guest whose last job is a complete delete and of which a domain or a file is left;
- a domain or a directory that the agent does not tell of, a half-made disk;
- anything that is left after the agent was asked to delete every guest.

    make bench-A1            QUICK=1 for 15 kills; SEED=n for other moments
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import libvirt

from lochness.errors import LochnessError
from lochness.identity import new_id
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import AgentProcess

#: After so many kills it is looked whether everything is as it should be; and in the end.
LOOK_EVERY: Final = 20
CREATES: Final = 4
DELETES: Final = 3
#: The agent is killed at most so long after it was asked; a create takes a tenth of that.
MOMENT_MAX_S: Final = 0.5
END_LIMIT_S: Final = 120.0


@dataclass
class Found:
    """What a campaign saw. `ends` counts the jobs by their end and reason."""

    kills: int = 0
    jobs: int = 0
    unanswered: int = 0
    resumed: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Campaign:
    """One agent, its guests and what it accepted."""

    def __init__(
        self, agent: AgentProcess, libvirt: libvirt.virConnect, seed: int, tell: Callable[[str], object]
    ) -> None:
        self._tell = tell
        self._agent = agent
        self._libvirt = libvirt
        self._dice = random.Random(seed)
        self._image = ""
        #: Every guest asked for, and the ids of its accepted jobs, oldest first.
        self._jobs: dict[str, list[str]] = {}
        self._counted: set[str] = set()
        self.found = Found()

    def run(self, kills: int) -> Found:
        began_s = time.monotonic()
        self._agent.start()
        self._agent.hold_lease()
        self._image = self._agent.with_image()
        for _ in range(kills):
            self._ask()
            threading.Event().wait(self._dice.uniform(0, MOMENT_MAX_S))
            self._agent.process.kill()
            self.found.kills += 1
            self._agent.start()
            self.found.resumed += len(self._agent.logged("agent.job_resumed"))
            if self.found.kills % LOOK_EVERY == 0 or self.found.kills == kills:
                self._look_at_jobs()
                self._look_at_guests()
                self._tell(f"{self.found.kills} kills, {self.found.jobs} jobs, {len(self.found.violations)} violations")
        self._remove_all()
        self.found.seconds = time.monotonic() - began_s
        return self.found

    def _ask(self) -> None:
        """Creates and deletes, side by side: some of the deletes follow a create that is under way."""
        asks = [(guest, "create") for guest in (new_id() for _ in range(CREATES))]
        asks += [(guest, "delete") for guest in self._dice.sample(sorted(self._jobs), min(DELETES, len(self._jobs)))]
        if self._dice.random() < 0.3:
            asks.append((asks[0][0], "delete"))
        bodies = {guest: self._agent.guest(self._image, id=guest) for guest, action in asks if action == "create"}
        for guest in bodies:
            self._agent.bind(guest)
        late = self._dice.random() < 0.5
        senders = [
            threading.Thread(target=self._send, args=(guest, action, bodies.get(guest))) for guest, action in asks
        ]
        for sender in senders:
            sender.start()
            if late:
                sender.join()
        if not late:
            threading.Event().wait(self._dice.uniform(0, 0.05))
            self._agent.process.kill()
        for sender in senders:
            sender.join()

    def _send(self, guest: str, action: str, body: Any) -> None:
        path = "/guests" if action == "create" else f"/guests/{guest}/delete"
        try:
            answer = self._agent.post(path, body)
        except httpx.HTTPError:
            self._jobs.setdefault(guest, [])
            self.found.unanswered += 1
            return
        if answer.status_code != httpx.codes.ACCEPTED:
            raise AssertionError(answer.text)
        self._jobs.setdefault(guest, []).append(answer.headers["X-Guest-Job-ID"])

    def _look_at_jobs(self) -> None:
        jobs: list[dict[str, Any]] = []

        def all_ended() -> bool:
            jobs[:] = self._agent.get("/jobs", limit="1000").json()
            return all(job["Status"] in ("Complete", "Error") for job in jobs)

        try:
            wait_until(all_ended, limit_s=END_LIMIT_S, what="end of every job")
        except (LochnessError, httpx.HTTPError) as error:
            self.found.violations.append(f"jobs have not ended: {error}")
        for id in [id for ids in self._jobs.values() for id in ids if id not in self._counted]:
            self._counted.add(id)
            answer = self._agent.get(f"/jobs/{id}")
            self.found.jobs += 1
            if answer.status_code != httpx.codes.OK:
                self.found.violations.append(f"job {id}: {answer.text.strip()}")
                continue
            job = answer.json()
            self.found.ends[f"{job['Action']}_{(job['Reason'] or job['Status']).lower()}"] += 1
            if job["Status"] not in ("Complete", "Error"):
                self.found.violations.append(f"job {id} is {job['Status']}")

    def _look_at_guests(self) -> None:
        told = {guest["id"]: guest["state"] for guest in self._agent.get("/guests").json()}
        domains, directories = self._domains(), self._directories()
        for orphan in (set(domains) | directories) - set(told):
            self.found.violations.append(f"guest {orphan} is here and not told of")
        for half in self._agent.guest_dir.rglob("*.partial"):
            self.found.violations.append(f"{half} is left")
        for guest in self._jobs:
            jobs = self._agent.get(f"/guests/{guest}/jobs", limit="1").json()
            if not jobs or jobs[0]["Status"] == "Error":
                continue  # nothing was begun, or it says itself that it failed
            is_whole = domains.get(guest) is True and any((self._agent.guest_dir / guest).glob("vda.*"))
            is_gone = guest not in domains and guest not in directories
            if not (is_whole if jobs[0]["Action"] == "create" else is_gone):
                seen = f"domain {domains.get(guest)}, files {guest in directories}"
                self.found.violations.append(f"guest {guest} after {jobs[0]['Action']}: {seen}")

    def _remove_all(self) -> None:
        for guest in sorted({*self._jobs, *self._domains(), *self._directories()}):
            job = self._agent.ended(self._agent.post(f"/guests/{guest}/delete"))
            if job["Status"] != "Complete":
                self.found.violations.append(f"guest {guest} could not be deleted: {job['Message']}")
        for left in (*self._domains(), *self._directories()):
            self.found.violations.append(f"guest {left} is left after its delete")
        if (answer := self._agent.delete(f"/images/{self._image}")).status_code != httpx.codes.OK:
            self.found.violations.append(f"the image is still held: {answer.text.strip()}")

    def _domains(self) -> dict[str, bool]:
        """The domains of our guests, and whether they run."""
        every = {domain.UUIDString(): bool(domain.isActive()) for domain in self._libvirt.listAllDomains()}
        return {id: runs for id, runs in every.items() if id in self._jobs}

    def _directories(self) -> set[str]:
        return {path.name for path in self._agent.guest_dir.iterdir()}


def run(directory: Path, kills: int, seed: int, tell: Callable[[str], object] = lambda _: None) -> Found:
    """A campaign with its files below `directory`; `tell` hears how far it is. Needs what `Libvirtd.available` says."""
    with (
        EtcdServer(directory / "etcd") as etcd,
        Machine(directory / "machine", "host") as machine,
        Libvirtd(machine) as libvirtd,
    ):
        # The test driver's domains live as long as somebody is connected.
        uri = f"test+unix:///default?socket={libvirtd.socket}"
        held = libvirt.open(uri)
        agent = AgentProcess(directory / "agent", etcd.url, libvirt=uri, jobs_kept=100_000)
        try:
            with closing(agent):
                return Campaign(agent, held, seed, tell).run(kills)
        finally:
            held.close()


def main() -> None:
    kills = 15 if os.environ.get("QUICK") else 200
    seed = int(os.environ.get("SEED", "1"))
    if reason := Libvirtd.available():
        raise SystemExit(f"bench-A1: needs the real parts: {reason}")
    print(
        f"A1: {kills} kills of an agent at random moments (seed {seed}), {CREATES} creates and {DELETES} deletes each"
    )
    with tempfile.TemporaryDirectory(prefix="lochness-a1-", dir="/var/tmp") as directory:
        found = run(Path(directory), kills, seed, lambda line: print(f"A1: {line}", flush=True))
    for violation in found.violations[:20]:
        print(f"A1: {violation}")
    ends = " ".join(f"{end}={count}" for end, count in sorted(found.ends.items()))
    print(
        f"A1 value={len(found.violations)} unit=violations kills={found.kills} jobs={found.jobs} {ends} "
        f"resumed={found.resumed} unanswered={found.unanswered} seconds={found.seconds:.0f}"
    )
    raise SystemExit(1 if found.violations else 0)


if __name__ == "__main__":
    main()
