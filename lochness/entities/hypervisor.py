"""A hypervisor in the store: the operator's record and the daemons' reports joined, its subnets and its guests."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from lochness import keys
from lochness.capacity import Policy, UnboundUse, claims_of, compute, unbound_use_from
from lochness.entities.addresses import view_with_free_addresses
from lochness.entities.guest import Guest
from lochness.entities.stored import Stored
from lochness.entities.subnet import Subnet
from lochness.errors import ConflictError, LeaseNotFoundError, NotFoundError, ValidationError
from lochness.identity import get_hypervisor_id
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.model.job import rfc3339
from lochness.model.resources import ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.placement.candidates import candidate_has_resources, candidate_has_subnet
from lochness.placement.cluster import ClusterView, cluster_view
from lochness.placement.decide import Refused, decide_one
from lochness.store.protocol import (
    Delete,
    Key,
    KeyExists,
    KeyUnchanged,
    KeyValue,
    Operation,
    Prefix,
    Put,
)
from lochness.transactions import Transaction, destroy_hypervisor, map_subnet, place_guest, release_guest

if TYPE_CHECKING:
    from lochness.context import Context

#: Where guests' disks lie unless the hypervisor's config says otherwise (guestDiskDir).
DEFAULT_GUEST_DIR: Final = "/var/lib/lochness/guests"
#: How often `add_guest` decides anew after another process changed what it had relied on.
MAX_PLACEMENT_ATTEMPTS: Final = 32


@dataclass(frozen=True, slots=True)
class Reported:
    """What a hypervisor's other keys said when they were read. `revision` is the resources key's, 0: there is none."""

    resources: ResourcesRecord
    revision: int
    config: Mapping[str, str]

    @classmethod
    def from_items(cls, resources: KeyValue | None, configs: Mapping[str, KeyValue]) -> Reported:
        record = ResourcesRecord.from_json(resources.value) if resources else ResourcesRecord()
        config = {key: item.value.decode() for key, item in configs.items()}
        return cls(record, resources.mod_revision if resources else 0, config)


class Hypervisor(Stored, HypervisorRecord):
    """A hypervisor. Its resources are the resources daemon's; saving changed ones stores them."""

    KIND = "hypervisor"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.hypervisor(id)

    @classmethod
    def load(cls, context: Context, id: str) -> Self:
        """Read metadata, resources and config at one revision. Raises NotFoundError."""
        reading = context.store.read(
            Key(keys.hypervisor(id)), Key(keys.hypervisor_resources(id)), Prefix(keys.hypervisor_configs(id))
        )
        metadata, resources = reading.one(0), reading.one(1)
        if metadata is None:
            raise NotFoundError(cls.KIND, id)
        found = cls.from_item(context, metadata)
        configs = {item.key.removeprefix(keys.hypervisor_configs(id)): item for item in reading.ranges[2]}
        found.join(Reported.from_items(resources, configs))
        return found

    @property
    def _reported(self) -> Reported:
        # Kept beside the fields: an annotated attribute would become one of the record's JSON fields.
        reported: Reported | None = self.__dict__.get("_reported_by_keys")
        return reported or Reported(ResourcesRecord(), 0, {})

    def join(self, reported: Reported) -> None:
        """Add what the other keys of this hypervisor say."""
        self.total_resources = reported.resources.total
        self.available_resources = reported.resources.available
        self.__dict__["_reported_by_keys"] = reported

    @property
    def config(self) -> dict[str, str]:
        """Its settings, as last read; written by `set_config`."""
        return dict(self._reported.config)

    def refresh(self) -> None:
        fresh = type(self).load(self.context, self.id)
        self._adopt(fresh, fresh.revision)
        self.join(fresh._reported)

    def _stored_value(self) -> bytes:
        return self.operator_part()

    def save(self) -> None:
        changed = self._resources_changed()
        super().save()
        if changed:
            self.join(replace(self._reported, resources=self._new_resources(), revision=self.revision))

    def _save_transaction(self) -> Transaction:
        saved = super()._save_transaction()
        if not self._resources_changed():
            return saved
        key = keys.hypervisor_resources(self.id)
        return saved + Transaction(
            (KeyUnchanged(key, self._reported.revision),), (Put(key, self._new_resources().to_json()),)
        )

    def _resources_changed(self) -> bool:
        before = self._reported.resources
        return (self.total_resources, self.available_resources) != (before.total, before.available)

    def _new_resources(self) -> ResourcesRecord:
        changed = self.to_fields()
        return self._reported.resources.patched(
            {"total": changed["total_resources"], "available": changed["available_resources"]}
        )

    def set_config(self, key: str, value: str) -> None:
        """Set a setting of this hypervisor; "" unsets it. Raises ValidationError for an empty key."""
        self.set_configs({key: value})

    def set_configs(self, changes: dict[str, str]) -> None:
        """Set several settings in one transaction; "" unsets one. Raises ValidationError, NotFoundError."""
        operations: list[Operation] = []
        for key, value in changes.items():
            if not key:
                raise ValidationError("a config key must not be empty", field="config")
            stored = keys.hypervisor_config(self.id, key)
            operations.append(Put(stored, value.encode()) if value else Delete(stored))
        if operations:
            self._commit_existing(Transaction((KeyExists(keys.hypervisor(self.id)),), tuple(operations)))
        remaining = {key: value for key, value in sorted({**self.config, **changes}.items()) if value}
        self.__dict__["_reported_by_keys"] = replace(self._reported, config=remaining)

    def is_alive(self) -> bool:
        """Whether its heartbeat is present."""
        return self.context.store.read(Key(keys.hypervisor_heartbeat(self.id))).one() is not None

    def heartbeat(self, ttl_s: int = 30) -> None:
        """Say that this machine lives, for the next `ttl_s` seconds: one lease, renewed by each call.

        For scripts; a host in production runs the heartbeat daemon. Raises ValidationError unless this machine's ID is
        the record's, NotFoundError when the record is gone, UnavailableError, AmbiguousWriteError.
        """
        self.verify_on_hv()
        store = self.context.store
        lease: int = self.__dict__.get("_heartbeat_lease", 0)
        if lease:
            try:
                store.keep_alive(lease)
                return
            except LeaseNotFoundError:
                pass  # it ran out between two calls: a new one
        lease = store.grant_lease(ttl_s)
        now = datetime.now(UTC)
        record = HeartbeatRecord(host=socket.gethostname(), pid=os.getpid(), since=rfc3339(now), ttl_s=ttl_s)
        put = Put(keys.hypervisor_heartbeat(self.id), record.to_json(), lease_id=lease)
        self._commit_existing(Transaction((KeyExists(keys.hypervisor(self.id)),), (put,)))
        self.__dict__["_heartbeat_lease"] = lease

    def update_resources(self, policy: Policy | None = None) -> None:
        """Write what this machine has and what its guests leave of it, and take both into the record.

        For scripts; a host in production runs the resources daemon, which knows of other domains as well: here the
        figure it last wrote is used. Disk is that of the directory in the config "guestDiskDir". Raises
        ValidationError unless this machine's ID is the record's, NotFoundError when the record is gone,
        UnavailableError, AmbiguousWriteError.
        """
        from lochness.host_facts import host_at  # psutil, of the extra "node"

        self.verify_on_hv()
        own_keys = keys.hypervisor_resources(self.id), keys.hypervisor_guests(self.id)
        reading = self.context.store.read(Key(own_keys[0]), Prefix(own_keys[1]))
        written = reading.one(0)
        before = ResourcesRecord.from_json(written.value) if written else ResourcesRecord()
        host = host_at(Path(self.config.get("guestDiskDir", DEFAULT_GUEST_DIR)))
        unbound = unbound_use_from(before) or UnboundUse()
        record = compute(host, unbound, claims_of(reading.ranges[1]), policy or Policy())
        put = Put(own_keys[0], record.to_json())
        revision = self._commit_existing(Transaction((KeyExists(keys.hypervisor(self.id)),), (put,)))
        self.join(replace(self._reported, resources=record, revision=revision))

    def verify_on_hv(self) -> None:
        """Raise ValidationError unless this machine's ID is this hypervisor's."""
        if get_hypervisor_id() != self.id:
            raise ValidationError(
                f"this machine's hypervisor ID is {get_hypervisor_id() or 'not set'}, the record's is {self.id}",
                field="id",
            )

    def subnets(self) -> dict[str, str]:
        """The ids of its subnets and the bridges they are mapped to."""
        items = self.context.store.read(Prefix(keys.hypervisor_subnets(self.id))).ranges[0]
        return {keys.last_part(item.key): item.value.decode() for item in items}

    def add_subnet(self, subnet: Subnet, bridge: str) -> None:
        """Map the subnet to a bridge, or to another one. Raises ValidationError for an empty bridge, NotFoundError."""
        self.map_subnets({subnet.id: bridge})

    def map_subnets(self, bridges: dict[str, str]) -> None:
        """Map several subnets in one transaction. Raises ValidationError, NotFoundError naming what does not exist."""
        transaction = Transaction((), ())
        for subnet_id, bridge in bridges.items():
            if not bridge or "/" in bridge or bridge.strip() != bridge:
                raise ValidationError(
                    f"the bridge of subnet {subnet_id} must be a name, got {bridge!r}", field=subnet_id
                )
            transaction += map_subnet(self.id, subnet_id, bridge)
        if transaction.operations:
            self._commit_existing(transaction)

    def remove_subnet(self, subnet: Subnet) -> None:
        """Take the mapping away. Raises NotFoundError when there is none."""
        key = keys.hypervisor_subnet(self.id, subnet.id)
        self._commit_existing(Transaction((KeyExists(key),), (Delete(key),)))

    def guests(self) -> list[str]:
        """The ids of the guests bound here, sorted."""
        items = self.context.store.read(Prefix(keys.hypervisor_guests(self.id), keys_only=True)).ranges[0]
        return [keys.last_part(item.key) for item in items]

    def for_each_guest(self, f: Callable[[Guest], object]) -> None:
        """Call `f` with each guest bound here; stops at and passes on what `f` raises."""
        for guest_id in self.guests():
            f(self.context.guest(guest_id))

    def add_guest(self, guest: Guest) -> None:
        """Bind the guest here, claim its resources and an address of a subnet of its network: all or nothing.

        Sets the guest's hypervisor, subnet, ip and bridge. Raises NoCandidateError with the reason when this hypervisor
        cannot hold it, ConflictError: reason "already_placed" when it has a place, "changed_meanwhile" when its record
        changed since it was read, "placement_contended" when others were faster MAX_PLACEMENT_ATTEMPTS times.
        """
        if guest.hypervisor:
            raise ConflictError(
                f"guest {guest.id} is on hypervisor {guest.hypervisor} already", reason="already_placed"
            )
        for _ in range(MAX_PLACEMENT_ATTEMPTS):
            if self._try_to_place(guest):
                return
        raise ConflictError(
            f"hypervisor {self.id}: {MAX_PLACEMENT_ATTEMPTS} placements in a row came after another's",
            keys=(keys.hypervisor_guests(self.id),),
            reason="placement_contended",
        )

    def _try_to_place(self, guest: Guest) -> bool:
        view = self._view_for(guest)
        here = view.hypervisors.get(self.id)
        if here is None:
            raise NotFoundError(self.KIND, self.id)
        # An operator who names the hypervisor decides against its liveness: it may be placed on before it first beats.
        decision = decide_one(view, guest, (candidate_has_subnet, candidate_has_resources))
        if isinstance(decision, Refused):
            raise decision.to_error()
        transaction = place_guest(
            decision,
            view_revision=view.revision,
            subnet_revision=here.subnet_revisions[decision.subnet],
            guest_revision=guest.revision,
            now=datetime.now(UTC),
        )
        try:
            revision = transaction.commit(self.context.store)
        except ConflictError as error:
            if keys.guest(guest.id) in error.keys:
                text = f"guest {guest.id} has changed since it was read"
                raise ConflictError(text, keys=error.keys, reason="changed_meanwhile") from error
            return False
        guest.adopt_placement(decision, revision)
        return True

    def _view_for(self, guest: Guest) -> ClusterView:
        """Of the cluster only what this one placement rests on, all at one revision."""
        store = self.context.store
        reading = store.read(
            Prefix(keys.hypervisor_prefix(self.id)),
            Key(keys.flavor(guest.flavor)),
            Prefix(keys.network_prefix(guest.network), keys_only=True),
        )
        hypervisors, flavors, networks = reading.ranges
        mapped = {
            keys.last_part(item.key) for item in hypervisors if item.key.startswith(keys.hypervisor_subnets(self.id))
        }
        linked = {keys.last_part(item.key) for item in networks}
        records = [Key(keys.subnet(id)) for id in sorted(mapped & linked)]
        found = store.read(*records, revision=reading.revision).ranges if records else ()
        view = cluster_view(
            reading.revision, (hypervisors, [item for items in found for item in items], flavors, networks)
        )
        subnets = {
            id: view_with_free_addresses(store, SubnetRecord.from_json(item.value), revision=reading.revision)
            for items in found
            for item in items
            if (id := keys.object_id(item.key, keys.SUBNET_PATH)[0]) in view.subnets
        }
        return replace(view, subnets=subnets)

    def remove_guest(self, guest: Guest) -> None:
        """The reverse of `add_guest`. Raises NotFoundError when the guest is not here, ConflictError."""
        if guest.hypervisor != self.id:
            raise NotFoundError("guest", guest.id, field="hypervisor")
        transaction = release_guest(guest, guest.revision)
        try:
            revision = transaction.commit(self.context.store)
        except ConflictError as error:
            text = f"guest {guest.id} has changed since it was read"
            raise ConflictError(text, keys=error.keys, reason="changed_meanwhile") from error
        guest.adopt_release(revision)

    def destroy(self) -> None:
        """Remove it with all its keys. Raises ConflictError, reason "has_guests", while guests are bound here."""
        reading = self.context.store.read(Prefix(keys.hypervisor_guests(self.id), keys_only=True))
        bound = len(reading.ranges[0])
        if bound:
            raise ConflictError(
                f"hypervisor {self.id} still has {bound} guest(s)",
                keys=(keys.hypervisor_guests(self.id),),
                reason="has_guests",
            )
        self.commit(destroy_hypervisor(self.id, self.revision, reading.revision))

    def _commit_existing(self, transaction: Transaction) -> int:
        """Commit what needs other objects to exist; a missing one is a NotFoundError."""
        try:
            return transaction.commit(self.context.store)
        except ConflictError as error:
            for key in error.keys:
                if key == keys.hypervisor(self.id):
                    raise NotFoundError(self.KIND, self.id) from error
                subnet_id = keys.last_part(key.removesuffix("/metadata"))
                raise NotFoundError("subnet", subnet_id, field=subnet_id) from error
            raise
