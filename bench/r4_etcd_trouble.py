"""R4: what does trouble with etcd cost? Frozen for 40 s, its leader killed again and again, compacted under watchers.

An etcd of three members, a controller, one hypervisor with its four daemons on libvirt's test driver, and four more of
which only the heartbeats run. After each trouble the whole chain is tried until it works: a guest is created, seen
running, and deleted again. A violation is a hypervisor that the controller told to be lost, a heartbeat key that was
ever gone, a daemon that ended, a chain that needs more than 5 s longer than before any trouble, and whatever
`lochness.invariants` finds at the end.

An etcd that stands still for longer than the leases' ttl ends them when it goes on, whatever a daemon does: then the
keys must be back before anybody is told (`keys_anew` counts them), and they are watched again from there on.

    make bench-R4            QUICK=1: frozen for 12 s, two leaders killed
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from lochness import events, keys
from lochness.errors import LochnessError
from lochness.invariants import check
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Prefix, Put
from lochness_lab.catalog import FLAVOR, HYPERVISOR, NETWORK, catalog, first_image, registration
from lochness_lab.cluster_kinds import DriverCluster
from lochness_lab.etcd import EtcdCluster, EtcdServer
from lochness_lab.processes import Process
from lochness_lab.readiness import Readiness
from lochness_lab.waiting import wait_until
from lochness_node.settings import HeartbeatSettings

HEARTS: Final = 4
FROZEN_S: Final = 40.0
QUICK_FROZEN_S: Final = 12.0
KILLS: Final = 10
QUICK_KILLS: Final = 2
ROUND_S: Final = 60.0
QUICK_ROUND_S: Final = 4.0
#: A killed member is away for this part of a round.
AWAY_PART: Final = 0.5
RECOVERY_LIMIT_S: Final = 5.0
CHAIN_LIMIT_S: Final = 90.0
WRITES: Final = 20


class TroubledCluster(DriverCluster):
    """DriverCluster on an etcd of three members, with more hypervisors that only beat."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.members = EtcdCluster(directory / "members")

    @property
    def etcd(self) -> EtcdServer:
        return self.members.members[0]

    @property
    def etcd_urls(self) -> str:
        return ",".join(self.members.urls)

    def _open(self) -> None:
        self.members.start()

    def _close(self) -> None:
        self.members.stop()

    def start_heart(self, id: str, name: str) -> None:
        """One more hypervisor's heartbeat, ready. Raises UnavailableError, DeadlineError."""
        config = self.directory / f"{name}.toml"
        config.write_text(f'id = "{id}"\netcd = "{self.etcd_urls}"\nmetrics_listen = "off"\n')
        readiness = self._readiness[name] = Readiness(self.directory / f"{name}.ready")
        words = self.python("lochness_node.main", "heartbeat", "--config", str(config))
        self.parts[name] = Process.start(
            words, name=name, log=self.directory / f"{name}.log", env=self.environment(readiness.environment)
        )
        self._wait_for(name)


@dataclass
class Found:
    """What a run saw, times in seconds."""

    chains_s: list[float] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    keys_anew: int = 0
    violations: list[str] = field(default_factory=list)


def run(frozen_s: float, kills: int, round_s: float) -> Found:
    found = Found()
    with (
        tempfile.TemporaryDirectory(prefix="lochness-r4-") as directory,
        TroubledCluster(Path(directory)) as cluster,
        EtcdStore(cluster.members.urls) as store,
    ):
        for words in (*registration(cluster), *catalog(cluster, first_image(cluster))):
            cluster.records(*words)
        for number in range(1, HEARTS + 1):
            id = str(uuid.uuid4())
            cluster.record("hv", "create", "--id", id, "--name", f"heart{number}")
            cluster.start_heart(id, f"heart{number}")
        for hypervisor in (HYPERVISOR, *(f"heart{number}" for number in range(1, HEARTS + 1))):
            wait_until(_is_alive(cluster, hypervisor), limit_s=60, what=f"heartbeat of {hypervisor}")
        births = heartbeats(store)
        pids = {name: part.pid for name, part in cluster.parts.items()}
        chain(cluster)  # the first one fetches the image
        for _ in range(3):
            found.chains_s.append(chain(cluster))
        usual_s = max(found.chains_s)
        print(f"R4: {len(births)} hypervisors alive; a guest comes and goes in {usual_s:.2f} s at most", flush=True)

        def recovered(what: str) -> None:
            began_s = time.monotonic()
            chain(cluster)
            took_s = time.monotonic() - began_s
            found.recoveries_s.append(took_s)
            print(f"R4: {what}: everything works again after {took_s:.2f} s", flush=True)
            if took_s > usual_s + RECOVERY_LIMIT_S:
                found.violations.append(f"{what}: {took_s:.1f} s until a guest comes and goes, before {usual_s:.1f} s")

        try:
            for member in cluster.members.members:
                member.freeze()
            pause(frozen_s)
            for member in cluster.members.members:
                member.thaw()
            recovered(f"etcd frozen for {frozen_s:g} s")
            if frozen_s >= HeartbeatSettings().ttl_s:
                before, births = (
                    births,
                    wait_until(
                        lambda: all_of(heartbeats(store), births), limit_s=RECOVERY_LIMIT_S, what="all heartbeats"
                    ),
                )
                found.keys_anew = sum(births[id] != birth for id, birth in before.items())
            for number in range(1, kills + 1):
                leader = cluster.members.leader()
                leader.kill()
                recovered(f"leader killed, {number} of {kills}")
                compact(store, cluster)
                pause(round_s * AWAY_PART)
                leader.launch()
                leader.wait_until_healthy()
                compact(store, cluster)
                recovered(f"compacted, and the member back, {number} of {kills}")
                pause(round_s * (1 - AWAY_PART))
        except LochnessError as error:
            found.violations.append(error.message)
        for name, part in cluster.parts.items():
            if not part.is_running or part.pid != pids[name]:
                found.violations.append(f"{name} ended with status {part.returncode}: {part.log_tail(3)}")
        told = cluster.parts["controller"].log.read_text().count(events.HYPERVISOR_LOST)
        if told:
            found.violations.append(f"the controller told {told} times that a hypervisor was lost")
        after = wait_until(lambda: heartbeats(store), limit_s=30, what="answer of etcd")
        found.violations += [f"hypervisor {id} was down" for id, birth in births.items() if after.get(id) != birth]
        items = store.read(Prefix(keys.ROOT)).ranges[0]
        found.violations += [f"{violation.kind}: {violation.text}" for violation in check(items)]
    return found


def heartbeats(store: EtcdStore) -> dict[str, int]:
    """The revisions at which the heartbeat keys came to be: another one tells that a key was gone in between."""
    items = store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0]
    return {item.key.split("/")[2]: item.create_revision for item in items if item.key.endswith("/heartbeat")}


def all_of(found: dict[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """What was found when it is all that is wanted, else nothing."""
    return found if found.keys() >= wanted.keys() else {}


def chain(cluster: DriverCluster) -> float:
    """Create a guest, see it run, delete it, asking again what was refused; the seconds. Raises DeadlineError."""
    began_s = time.monotonic()
    with httpx.Client(base_url=cluster.server, timeout=10, trust_env=False) as client:
        id = str(uuid.uuid4())
        body = {"id": id, "flavor": _id(cluster, "flavors", FLAVOR), "network": _id(cluster, "networks", NETWORK)}
        ask(lambda: client.post("/guests", json=body).status_code in (202, 409), "acknowledged create")
        ask(lambda: _state(client, id) == "running", "running guest")
        ask(lambda: client.delete(f"/guests/{id}").status_code in (202, 404), "acknowledged delete")
        ask(lambda: client.get(f"/guests/{id}").status_code == 404, "end of the guest")
    return time.monotonic() - began_s


def ask(condition: Callable[[], bool], what: str) -> None:
    """Until the API says so; no answer is a no."""

    def holds() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return condition()
        return False

    wait_until(holds, limit_s=CHAIN_LIMIT_S, what=what)


_IDS: Final[dict[str, str]] = {}


def _id(cluster: DriverCluster, kind: str, name: str) -> str:
    if kind not in _IDS:
        _IDS[kind] = cluster.record(kind.removesuffix("s"), "show", name)["id"]
    return _IDS[kind]


def _state(client: httpx.Client, id: str) -> str:
    answer = client.get(f"/guests/{id}")
    guest: Mapping[str, Any] = answer.json() if answer.status_code == 200 else {}
    return str(guest.get("status", {}).get("state", ""))


def _is_alive(cluster: DriverCluster, hypervisor: str) -> Callable[[], bool]:
    return lambda: bool(cluster.record("hv", "show", hypervisor)["alive"])


def compact(store: EtcdStore, cluster: TroubledCluster) -> None:
    """Write a little, so that watchers that are away miss something, and compact up to the last of it."""
    for number in range(WRITES):
        store.commit([], [Put(f"{keys.CONFIG_PATH}r4-{number % 2}", str(number).encode())])
    revision = store.read(Prefix(keys.CONFIG_PATH)).revision
    answer = cluster.members.leader().request("/v3/kv/compaction", {"revision": str(revision), "physical": True})
    answer.raise_for_status()


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def main() -> None:
    is_quick = bool(os.environ.get("QUICK"))
    frozen_s, kills, round_s = (QUICK_FROZEN_S, QUICK_KILLS, QUICK_ROUND_S) if is_quick else (FROZEN_S, KILLS, ROUND_S)
    began_s = time.monotonic()
    print(
        f"R4: etcd of 3, {HEARTS + 1} hypervisors; frozen {frozen_s:g} s, {kills} leaders killed, compacted each time"
    )
    found = run(frozen_s, kills, round_s)
    for text in found.violations[:20]:
        print(f"R4: {text}")
    usual_s, worst_s = max(found.chains_s), max(found.recoveries_s, default=0)
    print(
        f"R4 value={len(found.violations)} unit=violations frozen_s={frozen_s:g} leaders_killed={kills} "
        f"keys_anew={found.keys_anew} usual_s={usual_s:.2f} worst_recovery_s={worst_s:.2f} "
        f"seconds={time.monotonic() - began_s:.0f}"
    )
    raise SystemExit(1 if found.violations else 0)


if __name__ == "__main__":
    main()
