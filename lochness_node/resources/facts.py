"""Where do the figures come from? One function each, so that each can be replaced and tested alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lochness.capacity import Host
from lochness.host_facts import free_disk_mb, guest_disks_mb, host_cpus, host_memory_mb, numa_cells
from lochness.model.resources import NumaCell
from lochness_node.driver.protocol import Domain


@dataclass(frozen=True, slots=True)
class Sources:
    """One function per figure, in MB where there is a unit. Each raises UnavailableError when it cannot tell.

    `domains` are libvirt's, of this whole host, and may raise DeadlineError and DriverError too.
    """

    memory_mb: Callable[[], int]
    cpus: Callable[[], int]
    disk_free_mb: Callable[[Path], int]
    guest_disks_mb: Callable[[Path], Mapping[str, int]]
    domains: Callable[[], tuple[Domain, ...]]
    cells: Callable[[], tuple[NumaCell, ...]] = numa_cells

    def host(self, guest_dir: Path) -> Host:
        return Host(
            memory_mb=self.memory_mb(),
            cpus=self.cpus(),
            disk_free_mb=self.disk_free_mb(guest_dir),
            guest_disks_mb=self.guest_disks_mb(guest_dir),
            cells=self.cells(),
        )


def machine_sources(domains: Callable[[], tuple[Domain, ...]]) -> Sources:
    """This machine's: psutil, the kernel, the file system where guests' disks lie, and `domains`."""
    return Sources(
        memory_mb=host_memory_mb,
        cpus=host_cpus,
        disk_free_mb=free_disk_mb,
        guest_disks_mb=guest_disks_mb,
        domains=domains,
    )
