"""How long do the laboratory's parts take to be ready? Wall clock, seconds; the guest is emulated.

Each round starts from nothing but the built guest image: its etcd, machine, libvirtd and guest are new.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lochness.errors import LochnessError
from lochness_lab.etcd import EtcdServer
from lochness_lab.guest_domain import GuestDomain
from lochness_lab.guest_image import GuestImage, guest_image
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until

GUEST_LIMIT_S = 60.0


def elapsed_s(action: Callable[[], object]) -> float:
    start_s = time.monotonic()
    action()
    return time.monotonic() - start_s


def one_round(image: GuestImage, directory: Path) -> dict[str, float]:
    """Seconds by the name of the part."""
    figures = {}
    with EtcdServer(directory / "etcd") as etcd:
        etcd.stop()
        figures["etcd, start to healthy"] = elapsed_s(etcd.start)
    machine = Machine(directory / "machine", "bench")
    try:
        figures["machine, power on"] = elapsed_s(machine.power_on)
        libvirtd = Libvirtd(machine)
        figures["libvirtd, first start to answer"] = elapsed_s(libvirtd.start)
        figures["libvirtd, restart to answer"] = elapsed_s(libvirtd.restart)
        figures |= guest_figures(image, directory, machine, libvirtd)
        figures["machine, power off"] = elapsed_s(machine.power_off)
    finally:
        machine.power_off()
    return figures


def guest_figures(image: GuestImage, directory: Path, machine: Machine, libvirtd: Libvirtd) -> dict[str, float]:
    machine.bridge("br0", "10.7.0.1/24")
    guest = GuestDomain(
        name="nessie",
        image=image,
        bridge="br0",
        address="10.7.0.5/24",
        gateway="10.7.0.1",
        console=directory / "console",
        seed=directory / "seed.iso",
    )
    guest.write_seed()
    definition = directory / "nessie.xml"
    definition.write_text(guest.xml())

    def pings() -> bool:
        return machine.run(["ping", "-c", "1", "-W", "0.2", "10.7.0.5"], is_checked=False).returncode == 0

    def is_gone() -> bool:
        return "nessie" not in libvirtd.virsh("list", "--name").stdout.split()

    start_s = time.monotonic()
    libvirtd.virsh("create", str(definition))
    figures = {"guest, started": time.monotonic() - start_s}
    wait_until(pings, limit_s=GUEST_LIMIT_S, what="answer to a ping")
    figures["guest, start to first ping"] = time.monotonic() - start_s
    wait_until(lambda: "GUEST-READY" in guest.console.read_text(), limit_s=GUEST_LIMIT_S, what="ready guest")
    figures["guest, start to ready line"] = time.monotonic() - start_s
    libvirtd.virsh("shutdown", "nessie")
    figures["guest, ACPI shutdown"] = elapsed_s(lambda: wait_until(is_gone, limit_s=GUEST_LIMIT_S, what="shut guest"))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description="How long do the laboratory's parts take to be ready?")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure (3)")
    rounds = max(1, parser.parse_args().rounds)
    if reason := Libvirtd.available():
        print(f"bench_boot: needs the real parts: {reason}", file=sys.stderr)
        return 1
    try:
        image = guest_image()
        results = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(prefix="lochness-bench-") as directory:
                results.append(one_round(image, Path(directory)))
    except LochnessError as error:
        print(f"bench_boot: {error.message}", file=sys.stderr)
        return 1
    table = Table("part", "median s", "least s", "most s", title=f"bench_boot, {rounds} rounds")
    for name in results[0]:
        figures = [result[name] for result in results]
        table.add_row(name, *(f"{each:.2f}" for each in (statistics.median(figures), min(figures), max(figures))))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
