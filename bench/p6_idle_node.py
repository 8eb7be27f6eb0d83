"""P6: what do the four daemons of an idle hypervisor with 50 guests cost?

Each daemon is a process with its defaults; after they have settled, memory is their PSS (what is shared counts once)
and the processor's share is what the kernel charges them over a minute.

Then `lochness-node all`, the four in one process, is measured the same way.

    make bench-P6            QUICK=1 for 20 s
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from bench.node import bench_node
from lochness_lab.waiting import wait_until

GUESTS: Final = 50
GOAL_MB: Final = 120.0
GOAL_CPU_PERCENT: Final = 1.0
DAEMONS: Final = ("heartbeat", "resources", "guestwatch", "agent")


def main() -> None:
    duration_s = 20 if os.environ.get("QUICK") else 60
    memory, shares = measured(DAEMONS, duration_s)
    for name in DAEMONS:
        print(f"P6: {name:<10} {memory[name]:6.1f} MB  {shares[name]:5.2f} % of a core", flush=True)
    whole_memory, whole_shares = measured(("all",), duration_s)
    total_mb, total_percent = sum(memory.values()), sum(shares.values())
    print(f"P6: goal: {GOAL_MB:g} MB, {GOAL_CPU_PERCENT:g} % of a core")
    parts = " ".join(f"{name}_mb={memory[name]:.1f}" for name in DAEMONS)
    print(
        f"P6 value={total_mb:.1f} unit=MB cpu_percent={total_percent:.2f} all_mb={whole_memory['all']:.1f} "
        f"all_cpu_percent={whole_shares['all']:.2f} guests={GUESTS} seconds={duration_s} {parts}"
    )


def measured(names: tuple[str, ...], duration_s: float) -> tuple[dict[str, float], dict[str, float]]:
    """MB, and percent of a core, of each of the processes `names` of an idle node."""
    with bench_node() as node:
        guests = node.add_guests(GUESTS)
        node.start(*names)
        print(f"P6: {GUESTS} guests, {', '.join(names)} ready; {duration_s:g} s of nothing", flush=True)
        wait_until(lambda: all(node.cluster.status(guest) for guest in guests), limit_s=60, what="every status")
        threading.Event().wait(5)  # what follows the start settles
        pids = {name: daemon.process.pid for name, daemon in node.daemons.items()}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        threading.Event().wait(duration_s)
        shares = {name: 100 * (cpu_s(pid) - before[name]) / duration_s for name, pid in pids.items()}
        return {name: pss_mb(pid) for name, pid in pids.items()}, shares


def pss_mb(pid: int) -> float:
    """Its share of the memory, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the kernel does not tell PSS")


def cpu_s(pid: int) -> float:
    """What it has used so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
