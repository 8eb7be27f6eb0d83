"""Where do the figures come from? One function each, so that each can be replaced and tested alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lochness.capacity import Host
from lochness.host_facts import free_disk_mb, host_cpus, host_memory_mb, used_disk_mb
from lochness_node.driver.protocol import Domain


@dataclass(frozen=True, slots=True)
class Sources:
    """One function per figure, in MB where there is a unit. Each raises UnavailableError when it cannot tell.

    `domains` are libvirt's, of this whole host, and may raise DeadlineError and DriverError too.
    """

    memory_mb: Callable[[], int]
    cpus: Callable[[], int]
    disk_free_mb: Callable[[], int]
    disk_guests_mb: Callable[[], int]
    domains: Callable[[], tuple[Domain, ...]]

    def host(self) -> Host:
        return Host(
            memory_mb=self.memory_mb(),
            cpus=self.cpus(),
            disk_free_mb=self.disk_free_mb(),
            disk_guests_mb=self.disk_guests_mb(),
        )


def machine_sources(guest_dir: Path, domains: Callable[[], tuple[Domain, ...]]) -> Sources:
    """This machine's: psutil, the file system of `guest_dir`, and `domains`."""
    return Sources(
        memory_mb=host_memory_mb,
        cpus=host_cpus,
        disk_free_mb=partial(free_disk_mb, guest_dir),
        disk_guests_mb=partial(used_disk_mb, guest_dir),
        domains=domains,
    )
