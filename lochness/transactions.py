"""Every change that touches several keys, as one transaction: pure builders of compares and operations.

Invariants:
1. Each builder's transaction is complete: committed, the store keeps every promise of `lochness.invariants`; refused,
   nothing has changed.
2. Every key that the decision relied on is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from lochness import keys
from lochness.errors import AmbiguousWriteError, UnavailableError
from lochness.model.guest import Binding, GuestRecord, Power, PowerRecord
from lochness.model.job import JobRecord, rfc3339
from lochness.placement.decide import Placement
from lochness.store.protocol import (
    Compare,
    Delete,
    DeletePrefix,
    Key,
    KeyExists,
    KeyUnchanged,
    Operation,
    Prefix,
    PrefixUnchanged,
    Put,
    Selector,
    Store,
)


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """Compares and the operations they guard. Equal ones are sent once."""

    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]

    def __add__(self, other: Transaction) -> Transaction:
        """Both as one: all or nothing."""
        return joined((self, other))

    def commit(self, store: Store) -> int:
        """Commit to `store`; answers the revision. See `Store.commit` for the errors.

        When the answer was lost, the store is read again: a change that stands there has happened, and its revision is
        the answer. AmbiguousWriteError then means that it does not stand there (yet), or that the reading failed as
        well.
        """
        return self._outcome(store, lambda: store.commit(self.compares, self.operations))

    def begin(self, store: Store) -> Callable[[], int]:
        """As `commit`, in two steps: see `Store.begin_commit`."""
        outcome = store.begin_commit(self.compares, self.operations)
        return lambda: self._outcome(store, outcome)

    def _outcome(self, store: Store, outcome: Callable[[], int]) -> int:
        try:
            return outcome()
        except AmbiguousWriteError:
            revision = self._found_in(store)
            if revision is None:
                raise
            return revision

    def _found_in(self, store: Store) -> int | None:
        """The revision at which the operations' outcome stands in the store, None when it does not or none can tell."""
        puts = [operation for operation in self.operations if isinstance(operation, Put)]
        gone = [operation for operation in self.operations if not isinstance(operation, Put)]
        selectors: list[Selector] = [Key(put.key) for put in puts]
        selectors += [
            Key(each.key) if isinstance(each, Delete) else Prefix(each.prefix, keys_only=True) for each in gone
        ]
        try:
            reading = store.read(*selectors)
        except UnavailableError:
            return None
        written = [reading.one(number) for number in range(len(puts))]
        if any(item is None or item.value != put.value for item, put in zip(written, puts, strict=True)):
            return None
        if any(reading.ranges[len(puts) :]):
            return None
        revisions = {item.mod_revision for item in written if item is not None}
        return max(revisions, default=reading.revision)


def joined(transactions: Iterable[Transaction]) -> Transaction:
    """All of them as one: all or nothing. Equal compares, and equal operations, are sent once."""
    each = tuple(transactions)
    return Transaction(
        tuple(dict.fromkeys(compare for transaction in each for compare in transaction.compares)),
        tuple(dict.fromkeys(operation for transaction in each for operation in transaction.operations)),
    )


def create_job(job: JobRecord) -> Transaction:
    """A new job; its id must not exist."""
    return Transaction((KeyUnchanged(keys.job(job.id), 0),), (Put(keys.job(job.id), job.to_json()),))


def update_job(job: JobRecord, mod_revision: int) -> Transaction:
    """The job's next state, given that nobody else has moved it since `mod_revision`."""
    key = keys.job(job.id)
    return Transaction((KeyUnchanged(key, mod_revision),), (Put(key, job.to_json()),))


def create_guest(guest: GuestRecord, job: JobRecord, power: Power = "running") -> Transaction:
    """A guest that wants a place, what it should be, and the job that will find it one.

    Its flavor and network must still exist.
    """
    making = create_job(job)
    compares = (
        KeyUnchanged(keys.guest(guest.id), 0),
        KeyExists(keys.flavor(guest.flavor)),
        KeyExists(keys.network(guest.network)),
    )
    operations = (
        Put(keys.guest(guest.id), guest.to_json()),
        Put(keys.guest_power(guest.id), PowerRecord(desired=power).to_json()),
    )
    # Not by `joined`: nothing here can be there twice, and thousands of creates come together.
    return Transaction(compares + making.compares, operations + making.operations)


def request_action(guest_id: str, guest_revision: int, job: JobRecord, power: Power | None) -> Transaction:
    """A job on a guest that exists, and what the guest should be from now on (None: as before)."""
    wish = () if power is None else (Put(keys.guest_power(guest_id), PowerRecord(desired=power).to_json()),)
    return Transaction((KeyUnchanged(keys.guest(guest_id), guest_revision),), wish) + create_job(job)


def place_guest(
    placement: Placement,
    *,
    view_revision: int,
    subnet_revision: int,
    guest_revision: int,
    now: datetime,
    group_revision: int | None = None,
) -> Transaction:
    """Bind the guest, claim its capacity and its address, and write both into its record.

    `view_revision` is the revision of the view that decided; `subnet_revision` the mod_revision of the hypervisor's
    mapping of the subnet, which disappears with the hypervisor and with the mapping; `guest_revision` that of the
    guest's record. No binding may have been added to the hypervisor since the view, so two schedulers cannot
    overcommit it; nor, for a guest of a group, may any of the group have been placed since, wherever
    (`group_revision`, without it `view_revision`).
    """
    hypervisor, guest = placement.hypervisor, placement.guest
    placed = guest.with_fields(hypervisor=hypervisor, subnet=placement.subnet, ip=placement.ip, bridge=placement.bridge)
    claim = placement.claim
    binding = Binding(memory=claim.memory, disk=claim.disk, cpu=claim.cpu, placed_at=rfc3339(now), group=guest.group)
    address = keys.subnet_address(placement.subnet, placement.ip)
    compares: tuple[Compare, ...] = (
        PrefixUnchanged(keys.hypervisor_guests(hypervisor), view_revision),
        KeyUnchanged(keys.hypervisor_subnet(hypervisor, placement.subnet), subnet_revision),
        KeyUnchanged(address, 0),
        KeyUnchanged(keys.guest(guest.id), guest_revision),
    )
    operations: tuple[Operation, ...] = (
        Put(keys.hypervisor_guest(hypervisor, guest.id), binding.to_json()),
        Put(address, guest.id.encode()),
        Put(keys.guest(guest.id), placed.to_json()),
    )
    if guest.group:
        compares += (
            PrefixUnchanged(keys.group(guest.group), view_revision if group_revision is None else group_revision),
        )
        operations += (Put(keys.group_placed(guest.group), b"{}"),)
    return Transaction(compares, operations)


def release_guest(guest: GuestRecord, guest_revision: int) -> Transaction:
    """Take the guest off its hypervisor and free its address; its record stays, without a place."""
    blank = guest.with_fields(hypervisor="", subnet="", ip="", bridge="")
    return Transaction(
        (KeyUnchanged(keys.guest(guest.id), guest_revision),),
        (*_release_operations(guest), Put(keys.guest(guest.id), blank.to_json())),
    )


def destroy_guest(guest: GuestRecord, guest_revision: int) -> Transaction:
    """Remove the guest with everything it holds: binding, address, record, power, status."""
    return Transaction(
        (KeyUnchanged(keys.guest(guest.id), guest_revision),),
        (*_release_operations(guest), DeletePrefix(keys.guest_prefix(guest.id))),
    )


def _release_operations(guest: GuestRecord) -> Iterable[Operation]:
    if guest.hypervisor:
        yield Delete(keys.hypervisor_guest(guest.hypervisor, guest.id))
    if guest.subnet and guest.ip:
        yield Delete(keys.subnet_address(guest.subnet, guest.ip))


def link_subnet(network_id: str, subnet_id: str, subnet_value: bytes, subnet_revision: int) -> Transaction:
    """Make the subnet one of the network: both sides of the link. `subnet_value` names the network already."""
    return Transaction(
        (KeyExists(keys.network(network_id)), KeyUnchanged(keys.subnet(subnet_id), subnet_revision)),
        (Put(keys.subnet(subnet_id), subnet_value), Put(keys.network_subnet(network_id, subnet_id), b"{}")),
    )


def unlink_subnet(network_id: str, subnet_id: str, subnet_value: bytes, subnet_revision: int) -> Transaction:
    """Take the subnet out of the network: both sides of the link. `subnet_value` names no network any more."""
    return Transaction(
        (KeyUnchanged(keys.subnet(subnet_id), subnet_revision),),
        (Put(keys.subnet(subnet_id), subnet_value), Delete(keys.network_subnet(network_id, subnet_id))),
    )


def delete_subnet(network_id: str, subnet_id: str, subnet_revision: int) -> Transaction:
    """Remove the subnet, its addresses and its network's link. Whether guests use it is not looked at."""
    link = (Delete(keys.network_subnet(network_id, subnet_id)),) if network_id else ()
    return Transaction(
        (KeyUnchanged(keys.subnet(subnet_id), subnet_revision),),
        (DeletePrefix(keys.subnet_prefix(subnet_id)), *link),
    )


@dataclass(frozen=True, slots=True)
class Link:
    """Two objects that know each other: the keys of their records, and the link's key on each one's side."""

    objects: tuple[str, str]
    sides: tuple[str, str]


def link_objects(link: Link) -> Transaction:
    """Both sides of a link; both objects must exist."""
    return Transaction(tuple(KeyExists(key) for key in link.objects), tuple(Put(key, b"{}") for key in link.sides))


def unlink_objects(link: Link) -> Transaction:
    """Neither side of a link."""
    return Transaction((), tuple(Delete(key) for key in link.sides))


def destroy_object(prefix: str, links: Iterable[Link]) -> Transaction:
    """Everything under `prefix`, and the other side of each link, gone."""
    others = (Delete(side) for link in links for side in link.sides if not side.startswith(prefix))
    return Transaction((), (DeletePrefix(prefix), *others))


def map_subnet(hypervisor_id: str, subnet_id: str, bridge: str) -> Transaction:
    """Map the subnet to a bridge of the hypervisor; both must exist."""
    return Transaction(
        (KeyExists(keys.hypervisor(hypervisor_id)), KeyExists(keys.subnet(subnet_id))),
        (Put(keys.hypervisor_subnet(hypervisor_id, subnet_id), bridge.encode()),),
    )


def destroy_hypervisor(hypervisor_id: str, hypervisor_revision: int, view_revision: int) -> Transaction:
    """Remove the hypervisor with all its keys, given that it had no guest at `view_revision` and got none since."""
    return Transaction(
        (
            KeyUnchanged(keys.hypervisor(hypervisor_id), hypervisor_revision),
            PrefixUnchanged(keys.hypervisor_guests(hypervisor_id), view_revision),
        ),
        (DeletePrefix(keys.hypervisor_prefix(hypervisor_id)),),
    )
