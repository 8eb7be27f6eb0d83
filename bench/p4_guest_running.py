"""P4: how long from POST /guests to the domain running, above what bare libvirt needs to define and start the same?

A cluster of one hypervisor - etcd, libvirtd, the four daemons, the controller, each a process of its own - creates
guests one after the other, the image cached; in turn with them libvirt alone defines and starts the same domain, its
disk and seed made before. "Running" is the moment of libvirt's own event. Each guest is deleted before the next begins.

    make bench-P4            QUICK=1 for 6 guests
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import libvirt

from lochness.errors import LochnessError
from lochness.identity import GuestID, new_id
from lochness_lab.catalog import FLAVOR, HYPERVISOR, NETWORK, catalog, first_image, guest_creation, registration
from lochness_lab.cluster_kinds import QemuCluster
from lochness_lab.waiting import wait_until
from lochness_node.agent.durable import replace_file
from lochness_node.agent.guests.disks import make_disk
from lochness_node.agent.guests.iso import write_seed
from lochness_node.agent.guests.plan import plan_guest
from lochness_node.agent.images.decide import CachedImage
from lochness_node.agent.wire import Guest
from lochness_node.driver.domain_xml import domain_xml
from lochness_node.driver.protocol import DirectBoot

GOAL_MS: Final = 200.0
LIMIT_S: Final = 60.0


def main() -> None:
    if sys.argv[1:2] == ["inside"]:
        inside(json.loads(sys.argv[2]))
        return
    rounds = 6 if os.environ.get("QUICK") else 30
    if reason := QemuCluster.available():
        raise SystemExit(f"bench-P4: needs the real parts: {reason}")
    with tempfile.TemporaryDirectory(prefix="lochness-p4-", dir="/var/tmp") as directory:
        cluster = QemuCluster(Path(directory), tell=lambda line: print(f"P4: {line}", flush=True))
        try:
            measure(cluster, rounds)
        except LochnessError as error:
            raise SystemExit(f"bench-P4: {error.message}") from error
        finally:
            cluster.stop()


def measure(cluster: QemuCluster, rounds: int) -> None:
    """Bring the cluster up and measure from inside its machine."""
    image = first_image(cluster)
    cluster.launch()
    for entry in (*registration(cluster), *catalog(cluster, image)):
        cluster.record(*entry)
    cluster.wait_until_ready()
    wait_until(lambda: cluster.record("hv", "show", HYPERVISOR).get("alive"), limit_s=LIMIT_S, what="live hypervisor")
    cluster.record(*guest_creation("warm-up"))  # fetches the image
    cluster.record("guest", "delete", "warm-up", "--wait")
    plan = {
        "rounds": rounds,
        "server": cluster.server,
        "agent": cluster.agent_url,
        "flavor": cluster.record("flavor", "show", FLAVOR)["id"],
        "network": cluster.record("network", "show", NETWORK)["id"],
        "cache": str(cluster.directory / "cache"),
        "directory": str(cluster.directory / "bare"),
    }
    words = [sys.executable, "-m", "bench.p4_guest_running", "inside", json.dumps(plan)]
    # The machine has its own network and mounts, and /run with libvirt's socket; the checkout is the same.
    command = ["nsenter", "--target", str(cluster.machine.pid), "--mount", "--net", "--uts", "--wdns=/", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, env=environment, check=False, timeout=60 * rounds)
    if done.returncode:
        raise SystemExit(done.returncode)


class Starts:
    """When each domain of this libvirt came to run, by libvirt's events: seconds since 1970, by uuid."""

    def __init__(self) -> None:
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=self._run, daemon=True).start()
        self.connection: Any = libvirt.open("qemu:///system")
        self.times: dict[str, float] = {}
        self._news = threading.Condition()
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        self.connection.domainEventRegisterAny(None, kind, self._heard, None)

    @staticmethod
    def _run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    def _heard(self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: Any) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            with self._news:
                self.times[domain.UUIDString()] = time.time()
                self._news.notify_all()

    def of(self, uuid: str) -> float:
        with self._news:
            if not self._news.wait_for(lambda: uuid in self.times, LIMIT_S):
                raise SystemExit(f"bench-P4: guest {uuid} did not run within {LIMIT_S:g} s")
            return self.times[uuid]


def inside(plan: dict[str, Any]) -> None:
    """The measurement, inside the machine."""
    starts = Starts()
    whole, at_agent, bare, parts = [], [], [], []
    with httpx.Client(base_url=plan["server"], timeout=LIMIT_S) as server, httpx.Client(timeout=LIMIT_S) as agent:
        for number in range(plan["rounds"]):
            bare_ms, parts_ms = bare_guest(starts, plan)
            bare.append(bare_ms)
            parts.append(parts_ms)
            whole_ms, agent_ms = created_guest(starts, plan, server, agent)
            whole.append(whole_ms)
            at_agent.append(agent_ms)
            print(
                f"P4: {number + 1:2}: POST to running {whole_ms:5.0f} ms, of that with the agent {agent_ms:5.0f} ms; "
                f"bare libvirt {bare_ms:5.0f} ms",
                flush=True,
            )
    report(whole, at_agent, bare, parts)


def report(whole: list[float], at_agent: list[float], bare: list[float], parts: list[dict[str, float]]) -> None:
    base = statistics.median(bare)
    above = statistics.median(whole) - base
    agent_above = statistics.median(at_agent) - base
    print(f"P4: where the {above:.0f} ms above libvirt go (medians):")
    print(f"P4:   {above - agent_above:6.1f} ms  controller: accept, place, commit, ask the agent")
    print(f"P4:   {agent_above:6.1f} ms  agent, of which, measured apart:")
    for name in parts[0]:
        print(f"P4:     {statistics.median(each[name] for each in parts):6.1f} ms  {name}")
    most = sorted(whole)[min(len(whole) - 1, int(len(whole) * 0.99))] - base
    print(
        f"P4 value={above:.0f} unit=ms agent={agent_above:.0f} bare={base:.0f} p99={most:.0f} goal={GOAL_MS:.0f} "
        f"n={len(whole)}"
    )


def bare_guest(starts: Starts, plan: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Milliseconds of libvirt's define and start, and of each thing that the agent makes before."""
    id = GuestID(new_id())
    directory = Path(plan["directory"], id)
    directory.mkdir(parents=True)
    (cached,) = Path(plan["cache"]).iterdir()
    manifest = json.loads((cached / "image.json").read_bytes())
    boot = DirectBoot(str(cached / "kernel"), str(cached / "initrd"), manifest["cmdline"])
    image = CachedImage(cached.name, cached / f"disk.{manifest['format']}", manifest["format"], 1, boot)
    guest = Guest(id=id, image=image.id, memory=96, cpu=1, metadata={"name": "bare"})
    guest = Guest.from_fields(
        {
            **guest.to_fields(),
            "disks": [{"size": 16, "image": image.id}],
            "nics": [{"network": "demo0", "address": "10.44.0.9", "netmask": "ffffff00"}],
        }
    )
    made = plan_guest(guest, directory, {image.id: image}, binding_revision=1, domain_type="qemu", disk_format="qcow2")
    parts = {
        "its record on the disk": timed_ms(lambda: replace_file(directory / "guest.json", guest.to_json())),
        "its disk (qemu-img create)": timed_ms(lambda: make_disk(made.disks[0])),
        "its seed": timed_ms(lambda: write_seed(made.seed_path, made.seed)),
    }
    xml = domain_xml(replace(made.spec, binding_revision=1))
    begun_s = time.time()
    domain = starts.connection.defineXML(xml)
    domain.create()
    elapsed_ms = (starts.of(id) - begun_s) * 1000
    domain.destroy()
    domain.undefine()
    return elapsed_ms, parts


def created_guest(
    starts: Starts, plan: dict[str, Any], server: httpx.Client, agent: httpx.Client
) -> tuple[float, float]:
    """Milliseconds from the controller's POST, and from the agent's taking of the job, to running."""
    begun_s = time.time()
    answer = server.post("/guests", json={"flavor": plan["flavor"], "network": plan["network"]})
    answer.raise_for_status()
    id = answer.json()["id"]
    running_s = starts.of(id)
    wait_for_job(server, answer)
    (job,) = [each for each in agent.get(f"{plan['agent']}/guests/{id}/jobs").json() if each["Action"] == "create"]
    taken_s = datetime.fromisoformat(job["QueuedAt"]).timestamp()
    wait_for_job(server, server.delete(f"/guests/{id}"))
    return (running_s - begun_s) * 1000, (running_s - taken_s) * 1000


def wait_for_job(server: httpx.Client, answer: httpx.Response) -> None:
    id = answer.headers["X-Guest-Job-ID"]

    def is_over() -> bool:
        job = server.get(f"/jobs/{id}").json()
        if job["status"] == "error":
            raise SystemExit(f"bench-P4: {job['action']} failed: {job['error']}")
        return bool(job["status"] == "done")

    wait_until(is_over, limit_s=LIMIT_S, what=f"end of job {id}")


def timed_ms(action: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    action()
    return (time.perf_counter() - begun_s) * 1000


if __name__ == "__main__":
    main()
