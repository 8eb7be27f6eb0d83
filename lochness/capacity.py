"""How much of this hypervisor may guests use, and how much of that is left?

The sums, apart from where the figures come from:
1. total memory = the host's - its reserve - what domains without a binding here hold now, QEMU's overhead included.
2. total disk = what is free where guests' disks lie + what those disks take now - the reserve.
3. total cpu = (the host's - the reserve) x overcommit, rounded down, - the vCPUs of domains without a binding here.
4. available = total - the claims of the guests bound here - QEMU's overhead for each.
5. Nothing is ever below 0.

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
from lochness.model.resources import Resources, ResourcesRecord
from lochness.store.protocol import KeyValue


@dataclass(frozen=True, slots=True)
class Policy:
    """What the host keeps for itself, how often a CPU is offered, and QEMU's own memory per guest."""

    reserve_memory_mb: int = 1024
    reserve_disk_mb: int = 1024
    reserve_cpus: int = 0
    cpu_overcommit: float = 1.0
    guest_overhead_mb: int = 128


@dataclass(frozen=True, slots=True)
class Host:
    """The machine's memory and CPUs; `disk_free_mb` where guests' disks lie, `disk_guests_mb` what those take now."""

    memory_mb: int
    cpus: int
    disk_free_mb: int
    disk_guests_mb: int


@dataclass(frozen=True, slots=True)
class UnboundUse:
    """What active domains without a binding here hold: their number, memory and vCPUs."""

    domains: int = 0
    memory_mb: int = 0
    vcpus: int = 0


def total_memory_mb(host: Host, unbound: UnboundUse, policy: Policy) -> int:
    held_mb = unbound.memory_mb + unbound.domains * policy.guest_overhead_mb
    return max(0, host.memory_mb - policy.reserve_memory_mb - held_mb)


def total_disk_mb(host: Host, policy: Policy) -> int:
    return max(0, host.disk_free_mb + host.disk_guests_mb - policy.reserve_disk_mb)


def total_cpus(host: Host, unbound: UnboundUse, policy: Policy) -> int:
    offered = math.floor(max(0, host.cpus - policy.reserve_cpus) * policy.cpu_overcommit)
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
        disk=total_disk_mb(host, policy),
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
            "guest_disks_mb": host.disk_guests_mb,
            "reserve_memory_mb": policy.reserve_memory_mb,
            "reserve_disk_mb": policy.reserve_disk_mb,
            "reserve_cpus": policy.reserve_cpus,
            "cpu_overcommit": policy.cpu_overcommit,
            "unbound_domains": unbound.domains,
            "unbound_memory_mb": unbound.memory_mb,
            "unbound_vcpus": unbound.vcpus,
            "guests": len(claims),
        },
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
