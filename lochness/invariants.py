"""Does a snapshot of the store keep every promise? Each broken one with its numbers and a proposed repair. Pure.

    reading = store.read(Prefix(keys.ROOT))
    for violation in check(reading.ranges[0]): print(violation.kind, violation.text)

Invariants:
1. A store that only committed transactions of `lochness.transactions` is clean.
2. A repair is a transaction guarded by every key it was proposed on: applied to a store that has changed, it does
   nothing.
3. A repair frees or corrects keys; it never takes a binding from a guest that might run under it.

Not looked at: what runs on the hypervisors (guestwatch reports that), and what changes while the snapshot is looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from lochness import keys
from lochness.errors import ValidationError
from lochness.model.address import parse_ip
from lochness.model.guest import Binding, GuestRecord
from lochness.model.job import JobRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.store.protocol import Delete, KeyUnchanged, KeyValue, Operation, Put
from lochness.transactions import Transaction


class ViolationKind(StrEnum):
    """What promise is broken."""

    UNREADABLE_VALUE = "unreadable_value"
    UNKNOWN_KEY = "unknown_key"
    PART_WITHOUT_RECORD = "part_without_record"
    GUEST_BOUND_TWICE = "guest_bound_twice"
    BINDING_WITHOUT_GUEST = "binding_without_guest"
    BINDING_NOT_IN_RECORD = "binding_not_in_record"
    RECORD_WITHOUT_BINDING = "record_without_binding"
    ADDRESS_WITHOUT_OWNER = "address_without_owner"
    ADDRESS_NOT_IN_RECORD = "address_not_in_record"
    RECORD_WITHOUT_ADDRESS = "record_without_address"
    ADDRESS_OUTSIDE_SUBNET = "address_outside_subnet"
    MAC_USED_TWICE = "mac_used_twice"
    HYPERVISOR_OVERCOMMITTED = "hypervisor_overcommitted"
    LINK_ONE_SIDED = "link_one_sided"
    JOB_WITHOUT_GUEST = "job_without_guest"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. `keys` are the store keys it rests on; `repair` is None where a person must decide."""

    kind: ViolationKind
    keys: tuple[str, ...]
    text: str
    repair: Transaction | None = None
    repair_text: str = ""


@dataclass(frozen=True, slots=True)
class _Bound:
    """A binding and where it stands."""

    hypervisor: str
    item: KeyValue
    binding: Binding


class _Snapshot:
    """The key space, sorted by what it says. Reading it finds what is unreadable."""

    def __init__(self, items: Iterable[KeyValue]) -> None:
        self.items: dict[str, KeyValue] = {item.key: item for item in items}
        self.violations: list[Violation] = []
        self.guests: dict[str, GuestRecord] = {}
        self.subnets: dict[str, SubnetRecord] = {}
        self.resources: dict[str, ResourcesRecord] = {}
        self.bindings: dict[str, list[_Bound]] = defaultdict(list)
        self.addresses: dict[str, list[tuple[str, KeyValue]]] = defaultdict(list)
        self.jobs: list[tuple[JobRecord, KeyValue]] = []
        for item in self.items.values():
            try:
                self._take(item)
            except (ValidationError, UnicodeDecodeError) as error:
                self.violations.append(
                    Violation(ViolationKind.UNREADABLE_VALUE, (item.key,), f"{item.key} cannot be read: {error}")
                )

    def _take(self, item: KeyValue) -> None:
        path = next((path for path in _PARTS if item.key.startswith(path)), None)
        if path is None:
            self._unknown(item)
            return
        id, rest = keys.object_id(item.key, path)
        part, _, name = rest.partition("/")
        if part not in _PARTS[path]:
            self._unknown(item)
            return
        match path, part:
            case keys.GUEST_PATH, "metadata":
                self.guests[id] = GuestRecord.from_json(item.value)
            case keys.SUBNET_PATH, "metadata":
                record = SubnetRecord.from_json(item.value)
                record.validate()
                self.subnets[id] = record
            case keys.SUBNET_PATH, "addresses":
                self.addresses[id].append((name, item))
            case keys.HYPERVISOR_PATH, "resources":
                self.resources[id] = ResourcesRecord.from_json(item.value)
            case keys.HYPERVISOR_PATH, "guests":
                self.bindings[name].append(_Bound(id, item, Binding.from_json(item.value)))
            case keys.JOB_PATH, _:
                self.jobs.append((JobRecord.from_json(item.value), item))

    def _unknown(self, item: KeyValue) -> None:
        self.violations.append(Violation(ViolationKind.UNKNOWN_KEY, (item.key,), f"no version wrote a key {item.key}"))

    def guard(self, *names: str) -> tuple[KeyUnchanged, ...]:
        """Compares that hold while these keys are as in the snapshot, absent ones included."""
        return tuple(KeyUnchanged(name, self.items[name].mod_revision if name in self.items else 0) for name in names)

    def repair(self, operations: Iterable[Operation], *seen: str) -> Transaction:
        return Transaction(self.guard(*seen), tuple(operations))


#: What may stand behind an object's id. Under `config/` and `jobs/` the rest of the key is free.
_PARTS: Mapping[str, frozenset[str]] = {
    keys.GUEST_PATH: frozenset({"metadata", "power", "status"}),
    keys.HYPERVISOR_PATH: frozenset({"metadata", "resources", "heartbeat", "lost", "config", "subnets", "guests"}),
    keys.SUBNET_PATH: frozenset({"metadata", "addresses"}),
    keys.NETWORK_PATH: frozenset({"metadata", "subnets"}),
    keys.VLAN_PATH: frozenset({"metadata", "vlangroups"}),
    keys.VLANGROUP_PATH: frozenset({"metadata", "vlans"}),
    keys.FLAVOR_PATH: frozenset({"metadata"}),
    keys.FWGROUP_PATH: frozenset({"metadata"}),
    keys.IMAGE_PATH: frozenset({"metadata"}),
    keys.JOB_PATH: frozenset({""}),
}


def check(items: Iterable[KeyValue]) -> tuple[Violation, ...]:
    """Every broken promise of the snapshot `items` (all keys under keys.ROOT, at one revision)."""
    # These promise nothing to other keys.
    free = (keys.CONFIG_PATH, keys.CONTROLLER_PATH, keys.GROUP_PATH, keys.REQUEST_PATH, keys.TOKEN_PATH)
    snapshot = _Snapshot(item for item in items if not item.key.startswith(free))
    found = [
        *snapshot.violations,
        *_parts_without_record(snapshot),
        *_bindings(snapshot),
        *_placed_records(snapshot),
        *_addresses(snapshot),
        *_macs(snapshot),
        *_capacity(snapshot),
        *_links(snapshot),
        *_jobs(snapshot),
    ]
    return tuple(sorted(found, key=lambda violation: (violation.kind, violation.keys)))


def _parts_without_record(snapshot: _Snapshot) -> Iterator[Violation]:
    for key in snapshot.items:
        path = next((path for path in _PARTS if key.startswith(path)), keys.JOB_PATH)
        if path == keys.JOB_PATH:
            continue
        id, rest = keys.object_id(key, path)
        record = f"{path}{id}/metadata"
        # A daemon of a hypervisor that is not registered yet, or no more, may report; bindings are looked at below.
        is_reported = path == keys.HYPERVISOR_PATH and rest in ("heartbeat", "resources")
        is_binding = path == keys.HYPERVISOR_PATH and rest.startswith("guests/")
        if record in snapshot.items or is_reported or is_binding:
            continue
        yield Violation(
            ViolationKind.PART_WITHOUT_RECORD,
            (key,),
            f"{key} belongs to an object without a record",
            snapshot.repair([Delete(key)], key, record),
            f"delete {key}",
        )


def _bindings(snapshot: _Snapshot) -> Iterator[Violation]:
    for guest_id, bound in snapshot.bindings.items():
        record = snapshot.guests.get(guest_id)
        names = tuple(entry.item.key for entry in bound)
        if len(bound) > 1:
            hosts = ", ".join(entry.hypervisor for entry in bound)
            yield Violation(
                ViolationKind.GUEST_BOUND_TWICE,
                names,
                f"guest {guest_id} is bound to {len(bound)} hypervisors: {hosts}",
            )
        for entry in bound:
            if record is None:
                yield Violation(
                    ViolationKind.BINDING_WITHOUT_GUEST,
                    (entry.item.key,),
                    f"hypervisor {entry.hypervisor} is bound to guest {guest_id}, which does not exist "
                    f"and holds {entry.binding.memory} MB, {entry.binding.cpu} CPU(s) there",
                    snapshot.repair([Delete(entry.item.key)], entry.item.key, keys.guest(guest_id)),
                    f"delete {entry.item.key}, once no domain of that id runs there",
                )
            elif record.hypervisor != entry.hypervisor:
                yield Violation(
                    ViolationKind.BINDING_NOT_IN_RECORD,
                    (entry.item.key, keys.guest(guest_id)),
                    f"guest {guest_id} is bound to hypervisor {entry.hypervisor}, "
                    f"its record says {record.hypervisor or 'none'}",
                )


def _placed_records(snapshot: _Snapshot) -> Iterator[Violation]:
    for guest_id, record in snapshot.guests.items():
        if record.hypervisor:
            binding = keys.hypervisor_guest(record.hypervisor, guest_id)
            if binding not in snapshot.items:
                yield Violation(
                    ViolationKind.RECORD_WITHOUT_BINDING,
                    (keys.guest(guest_id), binding),
                    f"guest {guest_id} says it is on hypervisor {record.hypervisor}, which has no binding of it",
                )
        if record.subnet and record.ip:
            address = keys.subnet_address(record.subnet, record.ip)
            item = snapshot.items.get(address)
            holder = item.value.decode(errors="replace") if item else ""
            if not holder:
                seen = (address, keys.guest(guest_id))
                yield Violation(
                    ViolationKind.RECORD_WITHOUT_ADDRESS,
                    seen,
                    f"guest {guest_id} has address {record.ip}, which nobody holds in subnet {record.subnet}",
                    snapshot.repair([Put(address, guest_id.encode())], *seen),
                    f"give {record.ip} to guest {guest_id}",
                )
            elif holder != guest_id:
                yield Violation(
                    ViolationKind.RECORD_WITHOUT_ADDRESS,
                    (address, keys.guest(guest_id)),
                    f"guest {guest_id} has address {record.ip}, which guest {holder} holds",
                )


def _addresses(snapshot: _Snapshot) -> Iterator[Violation]:
    for subnet_id, held in snapshot.addresses.items():
        subnet = snapshot.subnets.get(subnet_id)
        for ip, item in held:
            guest_id = item.value.decode(errors="replace")
            owner = snapshot.guests.get(guest_id)
            if owner is None:
                yield Violation(
                    ViolationKind.ADDRESS_WITHOUT_OWNER,
                    (item.key,),
                    f"address {ip} of subnet {subnet_id} belongs to guest {guest_id}, which does not exist",
                    snapshot.repair([Delete(item.key)], item.key, keys.guest(guest_id)),
                    f"free {ip}",
                )
            elif (owner.subnet, owner.ip) != (subnet_id, ip):
                seen = (item.key, keys.guest(guest_id))
                yield Violation(
                    ViolationKind.ADDRESS_NOT_IN_RECORD,
                    seen,
                    f"address {ip} of subnet {subnet_id} belongs to guest {guest_id}, "
                    f"whose record says {owner.ip or 'none'} of {owner.subnet or 'none'}",
                    snapshot.repair([Delete(item.key)], *seen),
                    f"free {ip}",
                )
            if subnet is not None and parse_ip(ip, "ip") not in subnet.ip_network:
                yield Violation(
                    ViolationKind.ADDRESS_OUTSIDE_SUBNET,
                    (item.key, keys.subnet(subnet_id)),
                    f"address {ip} of guest {guest_id} is not inside {subnet.cidr}",
                )


def _macs(snapshot: _Snapshot) -> Iterator[Violation]:
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for guest_id, record in snapshot.guests.items():
        if record.mac:
            owners[record.network, record.mac].append(guest_id)
    for (network, mac), guests in owners.items():
        if len(guests) > 1:
            yield Violation(
                ViolationKind.MAC_USED_TWICE,
                tuple(keys.guest(guest_id) for guest_id in sorted(guests)),
                f"{len(guests)} guests of network {network} have the MAC {mac}",
            )


def _capacity(snapshot: _Snapshot) -> Iterator[Violation]:
    claims: dict[str, list[_Bound]] = defaultdict(list)
    for bound in snapshot.bindings.values():
        for entry in bound:
            claims[entry.hypervisor].append(entry)
    for hypervisor, entries in claims.items():
        resources = snapshot.resources.get(hypervisor, ResourcesRecord())
        claimed = Resources(
            memory=sum(entry.binding.memory for entry in entries) + resources.guest_overhead_mb * len(entries),
            disk=sum(entry.binding.disk for entry in entries),
            cpu=sum(entry.binding.cpu for entry in entries),
        )
        over = [
            f"{name} {getattr(claimed, name)} of {getattr(resources.total, name)}"
            for name in ("memory", "disk", "cpu")
            if getattr(claimed, name) > getattr(resources.total, name)
        ]
        if over:
            yield Violation(
                ViolationKind.HYPERVISOR_OVERCOMMITTED,
                (keys.hypervisor_resources(hypervisor), *(entry.item.key for entry in entries)),
                f"the {len(entries)} guests of hypervisor {hypervisor} hold {', '.join(over)}",
            )


def _links(snapshot: _Snapshot) -> Iterator[Violation]:
    for subnet_id, record in snapshot.subnets.items():
        if record.network and keys.network_subnet(record.network, subnet_id) not in snapshot.items:
            yield _one_sided(snapshot, keys.subnet(subnet_id), keys.network_subnet(record.network, subnet_id))
    for key in snapshot.items:
        parts = key.split("/")
        match parts:
            case ["lochness", "networks", network, "subnets", subnet_id]:
                linked = snapshot.subnets.get(subnet_id)
                if linked is None or linked.network != network:
                    yield _one_sided(snapshot, key, keys.subnet(subnet_id), is_deleted=True)
            case ["lochness", "vlans", tag, "vlangroups", group]:
                if keys.vlangroup_vlan(group, tag) not in snapshot.items:
                    yield _one_sided(snapshot, key, keys.vlangroup_vlan(group, tag), is_deleted=True)
            case ["lochness", "vlangroups", group, "vlans", tag]:
                if keys.vlan_vlangroup(tag, group) not in snapshot.items:
                    yield _one_sided(snapshot, key, keys.vlan_vlangroup(tag, group), is_deleted=True)


def _one_sided(snapshot: _Snapshot, key: str, other: str, *, is_deleted: bool = False) -> Violation:
    repair = (
        snapshot.repair([Delete(key)], key, other) if is_deleted else snapshot.repair([Put(other, b"{}")], key, other)
    )
    return Violation(
        ViolationKind.LINK_ONE_SIDED,
        (key, other),
        f"{key} says there is a link, {other} does not",
        repair,
        f"delete {key}" if is_deleted else f"write {other}",
    )


def _jobs(snapshot: _Snapshot) -> Iterator[Violation]:
    """Those that wait behind a delete that is done are no fault: each is told so, at its turn, as not_found."""
    deleted = {job.guest for job, _ in snapshot.jobs if job.request == "delete" and job.status == "done"}
    for job, item in snapshot.jobs:
        if not job.is_finished and keys.guest(job.guest) not in snapshot.items and job.guest not in deleted:
            yield Violation(
                ViolationKind.JOB_WITHOUT_GUEST,
                (item.key, keys.guest(job.guest)),
                f"job {job.id} ({job.action}, {job.status}) is about guest {job.guest}, which does not exist",
            )
