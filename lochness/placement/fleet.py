"""The cluster in memory, kept key by key: what is there, what is held, and up to which revision that is known.

Invariants:
1. What it tells is what `cluster_view` would tell of the same keys, plus what was taken here and is not settled yet.
2. A claim or an address taken here survives every older reading and event, until it is settled or given back.
3. `bindings_known` of a hypervisor never claims more than was seen: no binding can have been added there up to that
   revision that is not counted here. A view that is behind can only make a commit conflict, never overcommit.

Pure but not immutable: no store, clock or thread. Whoever shares it between threads locks it.

Not guaranteed: that a hypervisor of which a key cannot be read takes part; it is left out until that key is repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.address import ip_number
from lochness.model.flavor import FlavorRecord
from lochness.model.resources import Resources
from lochness.model.subnet import SubnetRecord
from lochness.placement.cluster import ClusterView, HypervisorParts, HypervisorView, SubnetView, subnet_view
from lochness.placement.decide import Placement
from lochness.store.protocol import Change, KeyValue

#: The revision of what was taken and is not committed yet: newer than any reading.
PENDING: Final = 1 << 62

#: Stands among a network's subnets for the network's own record.
_ITSELF: Final = ""


class Host:
    """One hypervisor: its keys, the revisions of its bindings, and what is free."""

    __slots__ = (
        "bindings_known", "broken", "claim_revisions", "free_cpu", "free_disk", "free_memory", "id", "parts", "read_at",
        "used_cpu", "used_disk", "used_memory", "view",
    )  # fmt: skip

    def __init__(self, id: str) -> None:
        self.id = id
        self.parts = HypervisorParts()
        self.broken: set[str] = set()
        self.claim_revisions: dict[str, int] = {}
        #: What own commits and readings of this hypervisor alone prove; the fleet's revision may be newer.
        self.bindings_known = 0
        self.read_at = 0
        self.used_memory = self.used_disk = self.used_cpu = 0
        self.free_memory = self.free_disk = self.free_cpu = 0
        self.view: HypervisorView | None = None

    @property
    def is_usable(self) -> bool:
        return self.parts.exists and not self.broken

    @property
    def free(self) -> Resources:
        return Resources(memory=self.free_memory, disk=self.free_disk, cpu=self.free_cpu)

    def take(self, rest: str, value: bytes, revision: int) -> None:
        """The key that ends in `rest` has this value. One that cannot be read takes the whole hypervisor out."""
        guest_id = rest.removeprefix("guests/") if rest.startswith("guests/") else ""
        before = self.parts.claims.get(guest_id) if guest_id else None
        try:
            self.parts.take(rest, value, revision)
        except (ValidationError, UnicodeDecodeError):
            self.broken.add(rest)
            return
        self.broken.discard(rest)
        if guest_id:
            self.claim_revisions[guest_id] = revision
            self._count(before, -1)
            self._count(self.parts.claims[guest_id], 1)

    def drop(self, rest: str) -> None:
        """The key that ends in `rest` is gone."""
        self.broken.discard(rest)
        if rest.startswith("guests/"):
            self.release(rest.removeprefix("guests/"))
        else:
            self.parts.drop(rest)

    def claim(self, guest_id: str, claim: Resources, group: str, revision: int) -> None:
        """The guest holds this much of it, as of `revision`."""
        if guest_id in self.parts.claims:
            self.release(guest_id)
        self.parts.claim(guest_id, claim, group)
        self.claim_revisions[guest_id] = revision
        self._count(claim, 1)

    def release(self, guest_id: str) -> None:
        """The guest holds nothing of it."""
        self._count(self.parts.claims.get(guest_id), -1)
        self.parts.release(guest_id)
        self.claim_revisions.pop(guest_id, None)

    def _count(self, claim: Resources | None, sign: int) -> None:
        if claim is not None:
            self.used_memory += sign * claim.memory
            self.used_disk += sign * claim.disk
            self.used_cpu += sign * claim.cpu

    def refresh(self) -> None:
        """Reckon anew what is free, after changes."""
        total = self.parts.resources.total
        overhead_mb = self.parts.resources.guest_overhead_mb * len(self.parts.claims)
        self.free_memory = max(0, total.memory - self.used_memory - overhead_mb)
        self.free_disk = max(0, total.disk - self.used_disk)
        self.free_cpu = max(0, total.cpu - self.used_cpu)
        self.view = None


class SubnetPool:
    """One subnet and its used addresses, each with the revision at which it was taken."""

    __slots__ = ("free", "free_from", "template", "used")

    def __init__(self, template: SubnetView) -> None:
        self.template = template
        self.used: dict[int, int] = {}
        #: How many addresses are left, and below which number none of them lies.
        self.free = template.size
        self.free_from = template.first

    def take(self, number: int, revision: int) -> None:
        if number not in self.used and self._counts(number):
            self.free -= 1
        self.used[number] = revision

    def release(self, number: int) -> None:
        if self.used.pop(number, None) is not None and self._counts(number):
            self.free += 1
            self.free_from = min(self.free_from, number)

    def first_free(self) -> int | None:
        """The lowest free address."""
        number, last, used, reserved = self.free_from, self.template.last, self.used, self.template.reserved
        if self.free <= 0:
            return None
        while number <= last and (number in used or number in reserved):
            number += 1
        self.free_from = number
        return number if number <= last else None

    def view(self) -> SubnetView:
        """As candidate functions see it; shares `used`, so it changes with this pool."""
        self.first_free()
        template = self.template
        return SubnetView(
            id=template.id,
            network=template.network,
            version=template.version,
            first=template.first,
            last=template.last,
            reserved=template.reserved,
            used=self.used.keys(),
            free_from=self.free_from,
        )

    def _counts(self, number: int) -> bool:
        return self.template.first <= number <= self.template.last and number not in self.template.reserved


class Fleet:
    """All hypervisors, subnets, flavors and networks. See the module's invariants."""

    def __init__(self) -> None:
        #: Hosts that have changed, for who keeps something of each; `shape` counts changes of what there is at all.
        self.changed: set[str] = set()
        self.shape = 0
        self.clear()

    def clear(self) -> None:
        """Know nothing any more, what was taken here included."""
        self.shape += 1
        #: Up to here every change of the hypervisors' keys was taken in.
        self.revision = 0
        self.hosts: dict[str, Host] = {}
        self.pools: dict[str, SubnetPool] = {}
        self.flavors: dict[str, FlavorRecord] = {}
        self.links: dict[str, set[str]] = {}
        self._group_known: dict[str, int] = {}
        self._records: dict[str, SubnetRecord] = {}
        self._orphans: dict[str, dict[int, int]] = {}
        self._usable: list[Host] | None = None
        self._views: dict[str, HypervisorView] = {}

    # ------------------------------------------------------------------------------------------- from the store

    def read(self, path: str, items: Iterable[KeyValue], revision: int) -> None:
        """Take over a reading of all keys under `path`: a whole kind, or one hypervisor."""
        if path.startswith(keys.HYPERVISOR_PATH):
            self._read_hosts(path, items, revision)
            if path == keys.HYPERVISOR_PATH:
                self.revision = max(self.revision, revision)
        elif path == keys.SUBNET_PATH:
            held = {id: _newer(used, revision) for id, used in self._used().items()}
            self.pools, self._records, self._orphans = {}, {}, {id: used for id, used in held.items() if used}
            for item in items:
                self._take_subnet(item.key, item.value, item.mod_revision)
        elif path == keys.FLAVOR_PATH:
            self.flavors = {}
            for item in items:
                self._take_flavor(item.key, item.value)
        elif path == keys.NETWORK_PATH:
            self.links = {}
            for item in items:
                self._take_network(item.key, item.value)
        self.shape += 1

    def take(self, path: str, changes: Iterable[Change], revision: int) -> None:
        """Take in what a watch of `path` brought, in order, up to `revision`."""
        for change in changes:
            if path == keys.HYPERVISOR_PATH:
                self._take_host(change)
            elif path == keys.SUBNET_PATH:
                self._take_subnet(change.key, change.value, change.mod_revision)
            elif path == keys.FLAVOR_PATH:
                self._take_flavor(change.key, change.value)
            else:
                self._take_network(change.key, change.value)
        if path == keys.HYPERVISOR_PATH:
            self.revision = max(self.revision, revision)

    def read_address(self, subnet_id: str, ip: str, revision: int) -> None:
        """The address was seen at this mod_revision; 0: it was seen to be free."""
        pool = self.pools.get(subnet_id)
        if pool is not None:
            number = ip_number(ip)
            was_full = pool.free <= 0
            if revision:
                pool.take(number, revision)
            elif pool.used.get(number, 0) < PENDING:
                pool.release(number)
            self.shape += was_full != (pool.free <= 0)

    def _read_hosts(self, path: str, items: Iterable[KeyValue], revision: int) -> None:
        before = {id: host for id, host in self.hosts.items() if keys.hypervisor_prefix(id).startswith(path)}
        fresh: dict[str, Host] = {}
        for item in items:
            id, rest = keys.object_id(item.key, keys.HYPERVISOR_PATH)
            host = fresh.get(id) or fresh.setdefault(id, Host(id))
            host.take(rest, item.value, item.mod_revision)
        for id, old in before.items():
            if old.read_at > revision:
                fresh[id] = old
                continue
            host = fresh.get(id) or fresh.setdefault(id, Host(id))
            host.bindings_known = max(host.bindings_known, old.bindings_known)
            for guest_id, taken_at in old.claim_revisions.items():
                if taken_at > revision and guest_id in old.parts.claims:
                    parts = old.parts
                    host.claim(guest_id, parts.claims[guest_id], parts.group_of.get(guest_id, ""), taken_at)
        for id, host in fresh.items():
            host.bindings_known = max(host.bindings_known, revision)
            host.read_at = max(host.read_at, revision)
            host.refresh()
            self.changed.add(id)
        self.hosts = {id: host for id, host in self.hosts.items() if id not in before} | fresh
        self._usable = None

    def _take_host(self, change: Change) -> None:
        id, rest = keys.object_id(change.key, keys.HYPERVISOR_PATH)
        host = self.hosts.get(id) or self.hosts.setdefault(id, Host(id))
        if change.mod_revision <= host.read_at:
            return
        if rest.startswith("guests/"):
            taken_at = host.claim_revisions.get(rest[7:], 0)
            # Our own commit comes back, or an older event of what was taken since.
            if change.mod_revision <= taken_at < PENDING or (change.value is None and taken_at == PENDING):
                return
        was_usable = host.is_usable
        if change.value is None:
            host.drop(rest)
        else:
            host.take(rest, change.value, change.mod_revision)
        host.refresh()
        self.changed.add(id)
        if was_usable != host.is_usable:
            self._usable = None
            self.shape += 1

    def _take_subnet(self, key: str, value: bytes | None, revision: int) -> None:
        id, rest = keys.object_id(key, keys.SUBNET_PATH)
        if rest == "metadata":
            self._take_subnet_record(id, value)
        elif rest.startswith("addresses/"):
            try:
                number = ip_number(rest.removeprefix("addresses/"))
            except ValidationError:
                return
            pool = self.pools.get(id)
            if pool is None:
                used = self._orphans.setdefault(id, {})
                if value is None:
                    used.pop(number, None)
                else:
                    used[number] = revision
                return
            if pool.used.get(number, 0) >= revision:
                return
            was_full = pool.free <= 0
            if value is None:
                pool.release(number)
            else:
                pool.take(number, revision)
            self.shape += was_full != (pool.free <= 0)

    def _take_subnet_record(self, id: str, value: bytes | None) -> None:
        self.shape += 1
        pool = self.pools.pop(id, None)
        if pool is not None:
            self._orphans[id] = pool.used
        if value is None:
            return
        try:
            record = SubnetRecord.from_json(value)
            record.validate()
        except ValidationError:
            return
        pool = self.pools[id] = SubnetPool(subnet_view(record, ()))
        for number, taken_at in self._orphans.pop(id, {}).items():
            pool.take(number, taken_at)

    def _used(self) -> dict[str, dict[int, int]]:
        return self._orphans | {id: pool.used for id, pool in self.pools.items()}

    def _take_flavor(self, key: str, value: bytes | None) -> None:
        id, _ = keys.object_id(key, keys.FLAVOR_PATH)
        self.flavors.pop(id, None)
        if value is not None:
            try:
                self.flavors[id] = FlavorRecord.from_json(value)
            except ValidationError:
                return

    def _take_network(self, key: str, value: bytes | None) -> None:
        id, rest = keys.object_id(key, keys.NETWORK_PATH)
        self.shape += 1
        linked = self.links.setdefault(id, set())
        name = rest.removeprefix("subnets/") if rest.startswith("subnets/") else _ITSELF
        (linked.discard if value is None else linked.add)(name)
        if not linked:
            del self.links[id]

    # ---------------------------------------------------------------------------------------------- what is known

    def bindings_known(self, hypervisor_id: str) -> int:
        """Up to which revision every new binding of the hypervisor is counted here."""
        host = self.hosts.get(hypervisor_id)
        return max(self.revision, host.bindings_known) if host else self.revision

    def group_known(self, name: str) -> int:
        """Up to which revision every placement of the group's guests is counted here."""
        return max(self.revision, self._group_known.get(name, 0))

    def usable(self) -> list[Host]:
        """The hypervisors that take part, in the order of their ids."""
        if self._usable is None:
            self._usable = sorted((host for host in self.hosts.values() if host.is_usable), key=lambda host: host.id)
            self._views = {}
        return self._usable

    def view(self) -> ClusterView:
        """As candidate functions see it. Shares parts with the fleet: for one decision, not to be kept."""
        hosts = self.usable()
        for host in hosts:
            if host.view is None or host.id not in self._views:
                host.view = self._views[host.id] = host.parts.view(host.id)
        return ClusterView(
            revision=self.revision,
            hypervisors=self._views,
            subnets={id: pool.view() for id, pool in self.pools.items()},
            flavors=self.flavors,
            networks=self.networks(),
        )

    def snapshot(self) -> ClusterView:
        """As `view`, to be kept: it shares nothing that changes."""
        view = self.view()
        return replace(
            view,
            hypervisors=dict(view.hypervisors),
            subnets={id: replace(subnet, used=frozenset(subnet.used)) for id, subnet in view.subnets.items()},
            flavors=dict(view.flavors),
        )

    def networks(self) -> Mapping[str, frozenset[str]]:
        """Each network's subnets."""
        return {id: frozenset(linked & self.pools.keys()) for id, linked in self.links.items()}

    # ------------------------------------------------------------------------------------------------ taken here

    def hold(self, placement: Placement) -> None:
        """Count the placement as there, until `settle` or `give_back`."""
        host = self.hosts[placement.hypervisor]
        host.claim(placement.guest.id, placement.claim, placement.guest.group, PENDING)
        host.refresh()
        self.changed.add(host.id)
        pool = self.pools[placement.subnet]
        pool.take(ip_number(placement.ip), PENDING)
        self.shape += pool.free <= 0

    def settle(self, placement: Placement, revision: int) -> None:
        """The placement was committed at `revision`, with its compares on the bindings and the group."""
        host, pool = self.hosts.get(placement.hypervisor), self.pools.get(placement.subnet)
        if host is not None:
            if host.claim_revisions.get(placement.guest.id) == PENDING:
                host.claim_revisions[placement.guest.id] = revision
            host.bindings_known = max(host.bindings_known, revision)
        if pool is not None:
            pool.used[ip_number(placement.ip)] = revision
        if placement.guest.group:
            self._group_known[placement.guest.group] = revision

    def give_back(self, placement: Placement) -> None:
        """The placement was not committed."""
        host, pool = self.hosts.get(placement.hypervisor), self.pools.get(placement.subnet)
        if host is not None and host.claim_revisions.get(placement.guest.id) == PENDING:
            host.release(placement.guest.id)
            host.refresh()
            self.changed.add(host.id)
        number = ip_number(placement.ip)
        if pool is not None and pool.used.get(number) == PENDING:
            was_full = pool.free <= 0
            pool.release(number)
            self.shape += was_full


def _newer(used: Mapping[int, int], revision: int) -> dict[int, int]:
    """What was taken after `revision`."""
    return {number: taken_at for number, taken_at in used.items() if taken_at > revision}
