"""Amounts of memory, disk and CPU: what a flavor asks for and what a hypervisor has."""

from __future__ import annotations

from typing import Any

import msgspec

from lochness.model.record import Quantity, Record, SmallQuantity


class Resources(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """memory in MB, disk in MB, cpu in vCPUs."""

    memory: Quantity = 0
    disk: Quantity = 0
    cpu: SmallQuantity = 0

    def minus(self, other: Resources) -> Resources:
        """What is left after taking `other` away; never below 0."""
        return Resources(
            memory=max(0, self.memory - other.memory),
            disk=max(0, self.disk - other.disk),
            cpu=max(0, self.cpu - other.cpu),
        )

    def plus(self, other: Resources) -> Resources:
        """The sum."""
        return Resources(memory=self.memory + other.memory, disk=self.disk + other.disk, cpu=self.cpu + other.cpu)


class HugePages(msgspec.Struct, frozen=True, kw_only=True):
    """Pages of one size that the host's kernel set aside, and how many of them nobody uses."""

    size_kb: Quantity = 0
    total: Quantity = 0
    free: Quantity = 0


class NumaCell(msgspec.Struct, frozen=True, kw_only=True):
    """A NUMA node of the host: its memory in MB, its CPUs in the kernel's list format ("0-3,8"), its huge pages."""

    cell: SmallQuantity = 0
    memory: Quantity = 0
    cpus: str = ""
    huge_pages: tuple[HugePages, ...] = ()


class ResourcesRecord(Record):
    """hypervisors/ID/resources: written by the resources daemon.

    `total` is what guests may use in all, after reserves and foreign domains, CPUs times the overcommit ratio.
    `available` is total minus the claims of the guests bound there and `guest_overhead_mb` (QEMU's own memory, MB) for
    each. `computed_from` holds the figures behind them, by name. `numa_cells` are the host's, [] when it does not tell.
    """

    total: Resources = Resources()
    available: Resources = Resources()
    guest_overhead_mb: Quantity = 0
    computed_from: dict[str, Any] = {}
    numa_cells: tuple[NumaCell, ...] = ()
