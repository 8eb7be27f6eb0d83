"""R5: how soon is a host whose power was cut seen as not alive?

Heartbeats of several hosts, processes with their defaults, stop in the middle of what they do (SIGSTOP: like a power
cut nothing is said, no connection is closed), each at a random moment of its interval. Timed until the controller's
API shows the host as not alive. A violation is a host that is still shown alive ttl + 2 s later.

    make bench-R5            QUICK=1 for hosts with a ttl of 10 s
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx

from lochness_lab.etcd import EtcdServer
from tests.process.controller_process import ControllerProcess
from tests.process.node_daemons import Cluster, NodeProcess

HOSTS: Final = 10
GRACE_S: Final = 2.0
#: Long after any limit: who is alive then is so for ever.
LIMIT_S: Final = 60.0


def main() -> None:
    ttl_s, interval_s = (10, 3.0) if os.environ.get("QUICK") else (30, 10.0)
    dice = random.Random(5)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lochness-r5-", dir="/var/tmp")))
        etcd = stack.enter_context(EtcdServer(directory / "etcd"))
        config = directory / "node.toml"
        config.write_text(f"[heartbeat]\nttl_s = {ttl_s}\ninterval_s = {interval_s}\nrequest_timeout_s = 3.0\n")
        hosts: dict[str, NodeProcess] = {}
        for _ in range(HOSTS):
            cluster = stack.enter_context(Cluster(etcd.url))
            flags = (*cluster.flags, "--config", str(config))
            hosts[cluster.id] = stack.enter_context(NodeProcess(directory, "heartbeat", *flags))
        controller = stack.enter_context(ControllerProcess(directory / "controller", etcd.url))
        for daemon in hosts.values():
            daemon.wait_until_ready(120)
        controller.wait_ready()
        http = stack.enter_context(httpx.Client(base_url=controller.urls[0], timeout=10, trust_env=False))
        print(f"R5: {HOSTS} hosts beat with a ttl of {ttl_s} s", flush=True)
        began_s = time.monotonic()
        cut_s: dict[str, float] = {}
        seen_s: dict[str, float] = {}
        moments = {host: began_s + dice.uniform(1, interval_s + 1) for host in hosts}
        while len(seen_s) < HOSTS and time.monotonic() < began_s + interval_s + ttl_s + LIMIT_S:
            for host in moments.keys() - cut_s.keys():
                if time.monotonic() >= moments[host]:
                    hosts[host].process.freeze()
                    cut_s[host] = time.monotonic()
            alive = {entry["id"] for entry in http.get("/hypervisors").json() if entry["alive"]}
            for host in cut_s.keys() - seen_s.keys() - alive:
                seen_s[host] = time.monotonic() - cut_s[host]
            threading.Event().wait(0.05)
    late = [host for host in hosts if seen_s.get(host, LIMIT_S) > ttl_s + GRACE_S]
    worst_s = max(seen_s.values(), default=LIMIT_S)
    print(f"R5: seen after {min(seen_s.values(), default=LIMIT_S):.1f} s to {worst_s:.1f} s")
    print(f"R5 value={len(late)} unit=violations worst_s={worst_s:.2f} ttl_s={ttl_s} hosts={HOSTS}")


if __name__ == "__main__":
    main()
