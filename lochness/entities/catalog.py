"""Flavors, images, firewall groups and networks: what operators offer guests to choose from."""

from __future__ import annotations

from lochness import keys
from lochness.entities.stored import Stored
from lochness.entities.subnet import Subnet
from lochness.errors import ConflictError
from lochness.model.flavor import FlavorRecord
from lochness.model.fwgroup import FWGroupRecord
from lochness.model.image import ImageRecord
from lochness.model.network import NetworkRecord
from lochness.store.protocol import Delete, DeletePrefix, KeyUnchanged, Prefix, PrefixUnchanged
from lochness.transactions import Transaction, link_subnet, unlink_subnet


class Flavor(Stored, FlavorRecord):
    """A flavor in the store."""

    KIND = "flavor"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.flavor(id)

    def destroy(self) -> None:
        """Remove it. Guests that have it keep what they hold. Raises ConflictError when it changed meanwhile."""
        self.commit(_delete(keys.flavor(self.id), self.revision))


class Image(Stored, ImageRecord):
    """An image in the store. What hypervisors have cached of it is theirs."""

    KIND = "image"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.image(id)

    def destroy(self) -> None:
        """Remove the record. Raises ConflictError when it changed meanwhile."""
        self.commit(_delete(keys.image(self.id), self.revision))


class FWGroup(Stored, FWGroupRecord):
    """A firewall group in the store."""

    KIND = "fwgroup"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.fwgroup(id)

    def destroy(self) -> None:
        """Remove it. Guests that name it keep its id. Raises ConflictError when it changed meanwhile."""
        self.commit(_delete(keys.fwgroup(self.id), self.revision))


class Network(Stored, NetworkRecord):
    """A network in the store, with the links to its subnets."""

    KIND = "network"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.network(id)

    def destroy(self) -> None:
        """Remove it.

        Raises ConflictError: reason "has_subnets" while subnets are linked, or when it changed meanwhile.
        """
        links = keys.network_subnets(self.id)
        reading = self.context.store.read(Prefix(links, keys_only=True))
        linked = len(reading.ranges[0])
        if linked:
            text = f"network {self.id} still has {linked} subnet(s)"
            raise ConflictError(text, keys=(links,), reason="has_subnets")
        guard = Transaction((PrefixUnchanged(links, reading.revision),), (DeletePrefix(keys.network_prefix(self.id)),))
        self.commit(Transaction((KeyUnchanged(keys.network(self.id), self.revision),), ()) + guard)

    def subnets(self) -> list[str]:
        """The ids of its subnets, sorted."""
        items = self.context.store.read(Prefix(keys.network_subnets(self.id), keys_only=True)).ranges[0]
        return [keys.last_part(item.key) for item in items]

    def add_subnet(self, subnet: Subnet) -> None:
        """Link the subnet, both sides in one transaction. No error when it is linked already.

        Raises ConflictError (reason "in_other_network") when it belongs to another network.
        """
        subnet.require_network("", self.id)
        linked = subnet.patched({"network": self.id})
        revision = self.commit(link_subnet(self.id, subnet.id, linked.to_json(), subnet.revision))
        subnet.adopt_saved(linked, revision)

    def remove_subnet(self, subnet: Subnet) -> None:
        """Unlink the subnet, both sides in one transaction. Raises ConflictError when it belongs to another network."""
        subnet.require_network(self.id)
        unlinked = subnet.patched({"network": ""})
        revision = self.commit(unlink_subnet(self.id, subnet.id, unlinked.to_json(), subnet.revision))
        subnet.adopt_saved(unlinked, revision)


def _delete(key: str, revision: int) -> Transaction:
    return Transaction((KeyUnchanged(key, revision),), (Delete(key),))
