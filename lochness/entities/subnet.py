"""A subnet in the store, and the addresses it has given away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lochness import keys
from lochness.entities.addresses import read_whole, view_with_free_addresses
from lochness.entities.stored import Stored
from lochness.errors import ConflictError, NotFoundError
from lochness.ids import parse_id
from lochness.model.address import IPAddress, normalized_ip
from lochness.model.record import Record
from lochness.model.subnet import SubnetRecord
from lochness.store.protocol import Delete, KeyExists, KeyUnchanged, Prefix, Put
from lochness.transactions import Transaction, delete_subnet

#: How often a reservation is decided anew after another process took the address it had chosen.
MAX_RESERVATION_ATTEMPTS: Final = 32


class Subnet(Stored, SubnetRecord):
    """A subnet. Its record is written by `save`; its network only by `Network.add_subnet` and `remove_subnet`."""

    KIND = "subnet"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.subnet(id)

    def addresses(self) -> dict[str, str]:
        """Used addresses and the ids of the guests that have them."""
        items = self.context.store.read(Prefix(keys.subnet_addresses(self.id))).ranges[0]
        return {keys.last_part(item.key): item.value.decode() for item in items}

    def available_addresses(self) -> Iterator[IPAddress]:
        """Free addresses in order, one at a time, as of one read at the beginning."""
        return read_whole(self.context.store, self).free_addresses()

    def reserve_address(self, guest_id: str) -> str:
        """Give a free address to the guest and answer it.

        Safe against any number of processes that do the same. Raises ConflictError: with reason "no_free_address" when
        none is left, "reservation_contended" when others were faster MAX_RESERVATION_ATTEMPTS times.
        """
        guest_id = parse_id(guest_id, field="guest")
        for _ in range(MAX_RESERVATION_ATTEMPTS):
            view = view_with_free_addresses(self.context.store, self)
            address = next(view.free_addresses(), None)
            if address is None:
                raise ConflictError(
                    f"subnet {self.id} has no free address: all {view.size} are used",
                    keys=(keys.subnet_addresses(self.id),),
                    reason="no_free_address",
                )
            key = keys.subnet_address(self.id, str(address))
            compares = (KeyUnchanged(key, 0), KeyExists(keys.subnet(self.id)))
            try:
                Transaction(compares, (Put(key, guest_id.encode()),)).commit(self.context.store)
            except ConflictError as error:
                if keys.subnet(self.id) in error.keys:
                    raise NotFoundError(self.KIND, self.id) from error
                continue
            return str(address)
        raise ConflictError(
            f"subnet {self.id}: {MAX_RESERVATION_ATTEMPTS} addresses in a row were taken by others first",
            keys=(keys.subnet_addresses(self.id),),
            reason="reservation_contended",
        )

    def release_address(self, ip: str) -> None:
        """Free the address, whoever has it. No error when it was free."""
        address = normalized_ip(ip, "ip")
        self.context.store.commit((), (Delete(keys.subnet_address(self.id, address)),))

    def delete(self) -> None:
        """Remove the subnet, its addresses and its link to its network, in one transaction.

        Does not check that it is unused: guests that have its addresses keep them in their records.
        """
        self.commit(delete_subnet(self.network, self.id, self.revision))

    def require_network(self, *allowed: str) -> None:
        """Raise ConflictError unless the subnet's network is one of `allowed` ("": none)."""
        if self.network not in allowed:
            whose = f"network {self.network}" if self.network else "no network"
            raise ConflictError(f"subnet {self.id} belongs to {whose}", reason="in_other_network")

    def adopt_saved(self, record: Record, revision: int) -> None:
        """Take over what a transaction has just written for this subnet."""
        self._adopt(record, revision)
