"""What placement knows: an immutable picture of the cluster at one revision of the store.

Invariants:
1. A hypervisor's free resources are its total minus the claims bound to it. There is no second counter that could
   drift: the `available` that the resources daemon reports is for people, not for decisions.
2. Building a view needs nothing but the reading; keys and values it cannot read are left out and named in `unreadable`.
3. A view never changes; `with_claim` answers a new one.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.address import IPAddress, ip_number
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import Binding
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.store.protocol import KeyValue, Prefix

#: What a view is read from, all at one revision.
CLUSTER_SELECTORS = (
    Prefix(keys.HYPERVISOR_PATH),
    Prefix(keys.SUBNET_PATH),
    Prefix(keys.FLAVOR_PATH),
    Prefix(keys.NETWORK_PATH, keys_only=True),
)


@dataclass(frozen=True, slots=True)
class SubnetView:
    """A subnet and its used addresses. `first` and `last` are the usable range; addresses are integers.

    `reserved` are never given to a guest: the gateway, and the addresses that mean the network itself. No address
    below `free_from` is free (None: not known).
    `offered`, when given, are free addresses that were looked at singly, in a range too large to be read whole.
    """

    id: str
    network: str
    version: int
    first: int
    last: int
    reserved: frozenset[int] = frozenset()
    used: Set[int] = frozenset()
    offered: tuple[int, ...] | None = None
    free_from: int | None = None

    @property
    def size(self) -> int:
        """How many addresses the range has for guests, used or not."""
        reserved = sum(self.first <= number <= self.last for number in self.reserved)
        return self.last - self.first + 1 - reserved

    @property
    def has_free_address(self) -> bool:
        return next(self.free_addresses(), None) is not None

    @property
    def free_count(self) -> int:
        """How many addresses are free; of a range that was not read whole, of those that were looked at."""
        if self.offered is not None:
            return sum(1 for _ in self.free_addresses())
        return self.size - sum(self.first <= number <= self.last for number in self.used - self.reserved)

    def free_addresses(self) -> Iterator[IPAddress]:
        """Free addresses in order, lazily: the range may be a /8 or an IPv6 /64.

        Takes at most one step per used one.
        """
        first = self.first if self.free_from is None else max(self.first, self.free_from)
        numbers = range_of(first, self.last) if self.offered is None else self.offered
        for number in numbers:
            if number not in self.reserved and number not in self.used:
                yield self.address(number)

    def address(self, number: int) -> IPAddress:
        """The address that is this integer in the subnet's IP version."""
        return ipaddress.IPv4Address(number) if self.version == 4 else ipaddress.IPv6Address(number)

    def with_used(self, address: str) -> SubnetView:
        return replace(self, used=self.used | {ip_number(address)})


def range_of(first: int, last: int) -> Iterator[int]:
    """first..last, both included; unlike `range`, an IPv6 range's length may exceed what `len` can say."""
    number = first
    while number <= last:
        yield number
        number += 1


@dataclass(frozen=True)
class HypervisorView:
    """A hypervisor as placement sees it. `subnets` maps its subnets' ids to its bridges.

    `cordoned` is why no new guest may come ("": it may), `metadata` the operator's (rack, zone ...), `groups` how many
    guests of each group are here.
    """

    id: str
    is_alive: bool
    total: Resources = Resources()
    claims: Mapping[str, Resources] = field(default_factory=dict)
    guest_overhead_mb: int = 0
    subnets: Mapping[str, str] = field(default_factory=dict)
    subnet_revisions: Mapping[str, int] = field(default_factory=dict)
    cordoned: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def claimed(self) -> Resources:
        """What the guests bound here hold, each with QEMU's own memory."""
        return Resources(
            memory=sum(claim.memory for claim in self.claims.values()) + self.guest_overhead_mb * len(self.claims),
            disk=sum(claim.disk for claim in self.claims.values()),
            cpu=sum(claim.cpu for claim in self.claims.values()),
        )

    @cached_property
    def free(self) -> Resources:
        return self.total.minus(self.claimed)

    def domain(self, name: str) -> str:
        """Its failure domain by the metadata `name`; without that metadata, and for "", it is one of its own."""
        return self.metadata.get(name) or self.id

    def with_claim(self, guest_id: str, claim: Resources, group: str = "") -> HypervisorView:
        groups = {**self.groups, group: self.groups.get(group, 0) + 1} if group else self.groups
        return replace(self, claims={**self.claims, guest_id: claim}, groups=groups)

    def without_claim(self, guest_id: str, group: str = "") -> HypervisorView:
        """The hypervisor as it would be without this guest of its."""
        groups = {name: count - (name == group) for name, count in self.groups.items()}
        return replace(
            self,
            claims={id: claim for id, claim in self.claims.items() if id != guest_id},
            groups={name: count for name, count in groups.items() if count},
        )


@dataclass(frozen=True)
class ClusterView:
    """The cluster at `revision`. `networks` maps a network's id to the ids of its subnets."""

    revision: int
    hypervisors: Mapping[str, HypervisorView]
    subnets: Mapping[str, SubnetView]
    flavors: Mapping[str, FlavorRecord]
    networks: Mapping[str, frozenset[str]]
    unreadable: tuple[str, ...] = ()

    @cached_property
    def ordinals(self) -> Mapping[str, int]:
        """Each hypervisor's place among all, in the order of their ids."""
        return {id: number for number, id in enumerate(sorted(self.hypervisors))}

    def with_placement(
        self, guest_id: str, hypervisor_id: str, subnet_id: str, ip: str, claim: Resources, group: str = ""
    ) -> ClusterView:
        """The cluster as it is once this guest is placed there."""
        hypervisor = self.hypervisors[hypervisor_id].with_claim(guest_id, claim, group)
        subnet = self.subnets[subnet_id].with_used(ip)
        return replace(
            self,
            hypervisors={**self.hypervisors, hypervisor_id: hypervisor},
            subnets={**self.subnets, subnet_id: subnet},
        )


def cluster_view(revision: int, ranges: Iterable[Iterable[KeyValue]]) -> ClusterView:
    """Build the view from the ranges of CLUSTER_SELECTORS, in their order."""
    hypervisor_range, subnet_range, flavor_range, network_range = ranges
    unreadable: list[str] = []
    subnets = _subnet_views(subnet_range, unreadable)
    return ClusterView(
        revision=revision,
        hypervisors=_hypervisor_views(hypervisor_range, unreadable),
        subnets=subnets,
        flavors=_flavors(flavor_range, unreadable),
        networks=_networks(network_range, subnets),
        unreadable=tuple(unreadable),
    )


class HypervisorParts:
    """What the keys of one hypervisor say, taken in and dropped one by one; `view` is the picture of it."""

    def __init__(self) -> None:
        self.exists = False
        self.is_alive = False
        self.resources = ResourcesRecord()
        self.claims: dict[str, Resources] = {}
        self.group_of: dict[str, str] = {}
        self.groups: dict[str, int] = {}
        self.subnets: dict[str, str] = {}
        self.subnet_revisions: dict[str, int] = {}
        self.cordoned = ""
        self.metadata: dict[str, str] = {}

    def take(self, rest: str, value: bytes, mod_revision: int) -> None:
        """Take in the key that ends in `rest`. Raises ValidationError, UnicodeDecodeError, and changes nothing then."""
        part, _, name = rest.partition("/")
        match part:
            case "metadata":
                self.metadata = HypervisorRecord.from_json(value).metadata
                self.exists = True
            case "heartbeat":
                self.is_alive = True
            case "resources":
                self.resources = ResourcesRecord.from_json(value)
            case "guests":
                binding = Binding.from_json(value)
                self.claim(name, binding.claim, binding.group)
            case "subnets":
                self.subnets[name] = value.decode()
                self.subnet_revisions[name] = mod_revision
            case "config" if name == keys.CORDONED:
                self.cordoned = value.decode()

    def drop(self, rest: str) -> None:
        """The key that ends in `rest` is gone."""
        part, _, name = rest.partition("/")
        match part:
            case "metadata":
                self.exists, self.metadata = False, {}
            case "heartbeat":
                self.is_alive = False
            case "resources":
                self.resources = ResourcesRecord()
            case "guests":
                self.release(name)
            case "subnets":
                self.subnets.pop(name, None)
                self.subnet_revisions.pop(name, None)
            case "config" if name == keys.CORDONED:
                self.cordoned = ""

    def claim(self, guest_id: str, claim: Resources, group: str) -> None:
        """The guest holds this much of it."""
        self.release(guest_id)
        self.claims[guest_id] = claim
        if group:
            self.group_of[guest_id] = group
            self.groups[group] = self.groups.get(group, 0) + 1

    def release(self, guest_id: str) -> None:
        """The guest holds nothing of it any more."""
        self.claims.pop(guest_id, None)
        group = self.group_of.pop(guest_id, "")
        if group:
            self.groups[group] -= 1
            if not self.groups[group]:
                del self.groups[group]

    def view(self, id: str) -> HypervisorView:
        return HypervisorView(
            id=id,
            is_alive=self.is_alive,
            total=self.resources.total,
            claims=dict(self.claims),
            guest_overhead_mb=self.resources.guest_overhead_mb,
            subnets=dict(self.subnets),
            subnet_revisions=dict(self.subnet_revisions),
            cordoned=self.cordoned,
            metadata=self.metadata,
            groups=dict(self.groups),
        )


def _hypervisor_views(items: Iterable[KeyValue], unreadable: list[str]) -> dict[str, HypervisorView]:
    parts: dict[str, HypervisorParts] = defaultdict(HypervisorParts)
    broken: set[str] = set()
    for item in items:
        id, rest = keys.object_id(item.key, keys.HYPERVISOR_PATH)
        try:
            parts[id].take(rest, item.value, item.mod_revision)
        except (ValidationError, UnicodeDecodeError):
            # A claim that cannot be read must not look like free room: the whole hypervisor is left out.
            unreadable.append(item.key)
            broken.add(id)
    return {id: gathered.view(id) for id, gathered in parts.items() if gathered.exists and id not in broken}


def _subnet_views(items: Iterable[KeyValue], unreadable: list[str]) -> dict[str, SubnetView]:
    records: dict[str, SubnetRecord] = {}
    used: dict[str, set[int]] = defaultdict(set)
    for item in items:
        id, rest = keys.object_id(item.key, keys.SUBNET_PATH)
        try:
            if rest == "metadata":
                record = SubnetRecord.from_json(item.value)
                record.validate()
                records[id] = record
            elif rest.startswith("addresses/"):
                used[id].add(ip_number(rest.removeprefix("addresses/")))
        except ValidationError:
            unreadable.append(item.key)
    return {id: subnet_view(record, used[id]) for id, record in records.items()}


def subnet_view(record: SubnetRecord, used: Iterable[int], *, offered: tuple[int, ...] | None = None) -> SubnetView:
    """The view of one valid subnet."""
    return SubnetView(
        id=record.id,
        network=record.network,
        version=record.first.version,
        first=int(record.first),
        last=int(record.last),
        reserved=_reserved(record),
        used=frozenset(used),
        offered=offered,
    )


def _reserved(record: SubnetRecord) -> frozenset[int]:
    """The gateway; the network's first address (IPv6: the subnet-router anycast address) and IPv4's broadcast address.

    Networks of one or two addresses (/31, /32, /127, /128) have no address to spare: RFC 3021, RFC 6164.
    """
    network = record.ip_network
    reserved = {ip_number(record.gateway, "gateway")} if record.gateway else set()
    if network.max_prefixlen - network.prefixlen > 1:
        reserved.add(int(network.network_address))
        if network.version == 4:
            reserved.add(int(network.broadcast_address))
    return frozenset(reserved)


def _flavors(items: Iterable[KeyValue], unreadable: list[str]) -> dict[str, FlavorRecord]:
    flavors = {}
    for item in items:
        id, _ = keys.object_id(item.key, keys.FLAVOR_PATH)
        try:
            flavors[id] = FlavorRecord.from_json(item.value)
        except ValidationError:
            unreadable.append(item.key)
    return flavors


def _networks(items: Iterable[KeyValue], subnets: Mapping[str, SubnetView]) -> dict[str, frozenset[str]]:
    links: dict[str, set[str]] = defaultdict(set)
    for item in items:
        id, rest = keys.object_id(item.key, keys.NETWORK_PATH)
        linked = links[id]
        if rest.startswith("subnets/"):
            linked.add(rest.removeprefix("subnets/"))
    return {id: frozenset(linked & subnets.keys()) for id, linked in links.items()}
