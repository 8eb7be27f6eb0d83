"""R6: what do a restarted, a frozen and a dead libvirtd do to a node, and to its heartbeat?

The four daemons run with their defaults beside a libvirtd with a QEMU guest; another host's heartbeat runs beside them.
libvirtd is well, frozen (SIGSTOP) and dead for a minute each, while what is left of both leases is asked of etcd four
times a second. Then it is restarted again and again; each time, from its first answer, the guest's plug is pulled until
the guest's status says so, and the time is taken. Violations:

- a heartbeat that was under another lease than before, or whose key was gone for a moment;
- a lease of which less was left than while libvirtd was well, by more than 2 s;
- news that took longer than 5 s after a restart.

    make bench-R6            QUICK=1 for 12 s each and 2 restarts
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from bench.node import BenchNode
from lochness import keys
from lochness.identity import GuestID
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.process.node_daemons import Cluster, NodeProcess

DAEMONS: Final = ("heartbeat", "resources", "guestwatch", "agent")
NEWS_LIMIT_S: Final = 5.0
SLACK_S: Final = 2.0


class Leases:
    """What is seen of some hosts' leases."""

    def __init__(self, etcd: EtcdServer, clusters: list[Cluster]) -> None:
        self._etcd = etcd
        self._clusters = clusters
        self._first = [self._key(cluster) for cluster in clusters]

    def watch(self, duration_s: float) -> tuple[float, int]:
        """The least time that was left of any lease, and how many looks found another one than at the beginning."""
        least_s, replaced = float("inf"), 0
        until_s = time.monotonic() + duration_s
        while time.monotonic() < until_s:
            for cluster, first in zip(self._clusters, self._first, strict=True):
                replaced += self._key(cluster) != first
                answer = self._etcd.request("/v3/lease/timetolive", {"ID": first[0]}).json()
                least_s = min(least_s, float(answer.get("TTL", 0)))
            threading.Event().wait(0.25)
        return least_s, replaced

    @staticmethod
    def _key(cluster: Cluster) -> tuple[int, int]:
        found = cluster.heartbeat
        return (found.lease_id, found.create_revision) if found else (0, 0)


def main() -> None:
    duration_s, restarts = (12.0, 2) if os.environ.get("QUICK") else (60.0, 10)
    if reason := Libvirtd.available():
        raise SystemExit(f"needs the real parts: {reason}")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lochness-r6-", dir="/var/tmp")))
        etcd = stack.enter_context(EtcdServer(directory / "etcd"))
        machine = stack.enter_context(Machine(directory / "m", "r6"))
        libvirtd = stack.enter_context(Libvirtd(machine))
        node = stack.enter_context(closing(BenchNode(directory, etcd, libvirtd.uri_outside)))
        other = stack.enter_context(Cluster(etcd.url))
        beside = stack.enter_context(NodeProcess(directory, "heartbeat", *other.flags))
        (guest,) = node.add_guests(1, domain_type="qemu")
        # A guest that falls again and again is started ever later and then given up, which is right and not asked here.
        node.start(*DAEMONS, config="[guestwatch]\nstarts_max = 1000\nbackoff_s = 1.0\nbackoff_max_s = 1.0\n")
        beside.wait_until_ready(120)
        node.cluster.wait_for_status(guest, "running", limit_s=60)

        leases = Leases(etcd, [node.cluster, other])
        print(f"R6: libvirtd is well for {duration_s:g} s", flush=True)
        well_s, violations = leases.watch(duration_s)
        libvirtd.freeze()
        print(f"R6: at least {well_s:g} s were left of each lease; frozen for {duration_s:g} s", flush=True)
        frozen_s, replaced = leases.watch(duration_s)
        violations += replaced + (frozen_s < well_s - SLACK_S)
        libvirtd.thaw()
        libvirtd.kill()
        print(f"R6: at least {frozen_s:g} s; dead for {duration_s:g} s", flush=True)
        dead_s, replaced = leases.watch(duration_s)
        violations += replaced + (dead_s < well_s - SLACK_S)
        print(f"R6: at least {dead_s:g} s; {restarts} restarts", flush=True)

        news_s = []
        for _ in range(restarts):
            libvirtd.kill()
            libvirtd.start()
            news_s.append(news_after_restart_s(node, libvirtd, guest))
            print(f"R6: news after {news_s[-1]:.2f} s", flush=True)
        violations += sum(each > NEWS_LIMIT_S for each in news_s)
        violations += leases.watch(1)[1]
    print(
        f"R6 value={violations} unit=violations lease_left_well_s={well_s:g} lease_left_frozen_s={frozen_s:g} "
        f"lease_left_dead_s={dead_s:g} news_max_s={max(news_s):.2f} seconds_each={duration_s:g} restarts={restarts}"
    )


def news_after_restart_s(node: BenchNode, libvirtd: Libvirtd, guest: GuestID) -> float:
    """From libvirtd's first answer until a status says that the guest, whose plug is pulled at once, has fallen."""
    before = node.cluster.get(keys.guest_status(guest))
    assert before is not None
    began_s = time.monotonic()
    libvirtd.virsh("destroy", str(guest))
    wait_until(
        lambda: (now := node.cluster.get(before.key)) is not None and now.mod_revision > before.mod_revision,
        limit_s=60,
        what="news of the guest",
    )
    took_s = time.monotonic() - began_s
    node.cluster.wait_for_status(guest, "running", limit_s=120)
    return took_s


if __name__ == "__main__":
    main()
