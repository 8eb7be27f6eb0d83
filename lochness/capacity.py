"""How much of this hypervisor may guests use, and how much of that is left?

The sums, apart from where the figures come from:
1. total memory = the host's - what it set aside as huge pages (no guest of ours uses those) - its reserve - what
   domains without a binding here hold now, QEMU's overhead included.
2. total disk = what is free where guests' disks lie + what those disks take now - the reserve.
3. total cpu = (the host's - the reserve) x overcommit, rounded down, - the vCPUs of domains without a binding here.
4. available = total - the claims of the guests bound here - QEMU's overhead for each.
5. Nothing is ever below 0.
6. A reserve is an amount and a share (rounded up) of what the host has; the larger of both counts.

A claim is the flavor as it was at placement; what a guest uses at the moment does not matter. A domain that is off
holds nothing: a foreign one that will be started later needs a reserve. A domain of ours that has no binding here holds
what it uses: it is really there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.guest import Binding
from lochness.model.resources import NumaCell, Resources, ResourcesRecord
from lochness.store.protocol import KeyValue


@dataclass(frozen=True, slots=True)
class Policy:
    """What the host keeps for itself, how often a CPU is offered, and QEMU's own memory per guest.

    The percentages are of the host's memory and CPUs, and of what the disk would have without guests.
    """

    reserve_memory_mb: int = 1024
    reserve_disk_mb: int = 1024
    reserve_cpus: int = 0
    cpu_overcommit: float = 1.0
    guest_overhead_mb: int = 128
    reserve_memory_percent: float = 0.0
    reserve_disk_percent: float = 0.0
    reserve_cpus_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Host:
    """The machine's memory and CPUs; `disk_free_mb` where guests' disks lie, `guest_disks_mb` what each takes of it.

    By the names of the folders there, guests' or not: only what guests bound here take is room that they have claimed.

    `cells` are its NUMA nodes with their huge pages, () when it does not tell.
    """

    memory_mb: int
    cpus: int
    disk_free_mb: int
    guest_disks_mb: Mapping[str, int]
    cells: tuple[NumaCell, ...] = ()

    @property
    def huge_pages_mb(self) -> int:
        """Memory that is set aside as huge pages, used or not."""
        return sum(pages.size_kb * pages.total for cell in self.cells for pages in cell.huge_pages) // 1024


@dataclass(frozen=True, slots=True)
class UnboundUse:
    """What active domains without a binding here hold: their number, memory and vCPUs."""

    domains: int = 0
    memory_mb: int = 0
    vcpus: int = 0


def reserved(whole: int, amount: int, percent: float) -> int:
    """What the host keeps of `whole`."""
    return max(amount, math.ceil(whole * percent / 100))


def total_memory_mb(host: Host, unbound: UnboundUse, policy: Policy) -> int:
    held_mb = unbound.memory_mb + unbound.domains * policy.guest_overhead_mb
    reserve_mb = reserved(host.memory_mb, policy.reserve_memory_mb, policy.reserve_memory_percent)
    return max(0, host.memory_mb - host.huge_pages_mb - reserve_mb - held_mb)


def claimed_disks_mb(host: Host, claims: Mapping[str, Resources]) -> int:
    """What the guests have of their claims already. Beyond its claim a disk takes others' room, as any file does."""
    return sum(min(host.guest_disks_mb.get(guest, 0), claim.disk) for guest, claim in claims.items())


def total_disk_mb(host: Host, claims: Mapping[str, Resources], policy: Policy) -> int:
    there_mb = host.disk_free_mb + claimed_disks_mb(host, claims)
    return max(0, there_mb - reserved(there_mb, policy.reserve_disk_mb, policy.reserve_disk_percent))


def total_cpus(host: Host, unbound: UnboundUse, policy: Policy) -> int:
    left = max(0, host.cpus - reserved(host.cpus, policy.reserve_cpus, policy.reserve_cpus_percent))
    offered = math.floor(left * policy.cpu_overcommit)
    return max(0, offered - unbound.vcpus)


def claimed(claims: Iterable[Resources], policy: Policy) -> Resources:
    """The sum of the guests' claims, with QEMU's own memory for each."""
    overhead = Resources(memory=policy.guest_overhead_mb)
    used = Resources()
    for claim in claims:
        used = used.plus(claim).plus(overhead)
    return used


def compute(host: Host, unbound: UnboundUse, claims: Mapping[str, Resources], policy: Policy) -> ResourcesRecord:
    """The record. `claims` are those of the guests bound here, by guest."""
    total = Resources(
        memory=total_memory_mb(host, unbound, policy),
        disk=total_disk_mb(host, claims, policy),
        cpu=total_cpus(host, unbound, policy),
    )
    return ResourcesRecord(
        total=total,
        available=total.minus(claimed(claims.values(), policy)),
        guest_overhead_mb=policy.guest_overhead_mb,
        computed_from={
            "host_memory_mb": host.memory_mb,
            "host_cpus": host.cpus,
            "host_disk_free_mb": host.disk_free_mb,
            "guest_disks_mb": claimed_disks_mb(host, claims),
            "reserve_memory_mb": policy.reserve_memory_mb,
            "reserve_disk_mb": policy.reserve_disk_mb,
            "reserve_cpus": policy.reserve_cpus,
            "reserve_memory_percent": policy.reserve_memory_percent,
            "reserve_disk_percent": policy.reserve_disk_percent,
            "reserve_cpus_percent": policy.reserve_cpus_percent,
            "huge_pages_mb": host.huge_pages_mb,
            "cpu_overcommit": policy.cpu_overcommit,
            "unbound_domains": unbound.domains,
            "unbound_memory_mb": unbound.memory_mb,
            "unbound_vcpus": unbound.vcpus,
            "guests": len(claims),
        },
        numa_cells=host.cells,
    )


def unbound_use_from(record: ResourcesRecord) -> UnboundUse | None:
    """The figure that an earlier record was computed from, None when it does not tell."""
    figures = [record.computed_from.get(name) for name in ("unbound_domains", "unbound_memory_mb", "unbound_vcpus")]
    match figures:
        case [int(domains), int(memory_mb), int(vcpus)]:
            return UnboundUse(domains, memory_mb, vcpus)
        case _:
            return None


def claims_of(bindings: Iterable[KeyValue]) -> dict[str, Resources]:
    """What the guests of `bindings` claim, by guest.

    Raises ValidationError naming the key of a malformed one: leaving it out would offer what is taken.
    """
    claims: dict[str, Resources] = {}
    for binding in bindings:
        try:
            claims[keys.last_part(binding.key)] = Binding.from_json(binding.value).claim
        except ValidationError as error:
            raise ValidationError(f"{binding.key}: {error.message}", field=error.field) from error
    return claims
