"""A guest in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lochness import keys
from lochness.entities.stored import Stored
from lochness.errors import NotFoundError
from lochness.model.guest import GuestRecord, GuestStatus, PowerRecord
from lochness.placement.candidates import CandidateFunction, GuestRequest
from lochness.placement.cluster import CLUSTER_SELECTORS, cluster_view
from lochness.placement.decide import Placement, Refused, decide_one, narrow
from lochness.store.protocol import Key
from lochness.transactions import destroy_guest

if TYPE_CHECKING:
    from lochness.entities.hypervisor import Hypervisor


class Guest(Stored, GuestRecord):
    """A guest. `Hypervisor.add_guest` places it, `destroy` removes it with all it holds."""

    KIND = "guest"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.guest(id)

    def status(self) -> GuestStatus:
        """What guestwatch last saw; state "unknown" when it has not seen it yet."""
        item = self.context.store.read(Key(keys.guest_status(self.id))).one()
        return GuestStatus.from_json(item.value) if item else GuestStatus(reason="not seen yet")

    def power(self) -> PowerRecord:
        """What the guest should be."""
        item = self.context.store.read(Key(keys.guest_power(self.id))).one()
        return PowerRecord.from_json(item.value) if item else PowerRecord()

    def destroy(self) -> None:
        """Remove the record and release its address and its place, in one transaction.

        The domain is the agent's to remove, before. Raises ConflictError when the guest changed meanwhile.
        """
        self.commit(destroy_guest(self, self.revision))

    def adopt_placement(self, placement: Placement, revision: int) -> None:
        """Take over what a committed placement has written into the guest's record."""
        self.hypervisor, self.subnet = placement.hypervisor, placement.subnet
        self.ip, self.bridge = placement.ip, placement.bridge
        self.__dict__["_revision"] = revision

    def adopt_release(self, revision: int) -> None:
        """Take over what a committed release has written into the guest's record."""
        self.hypervisor = self.subnet = self.ip = self.bridge = ""
        self.__dict__["_revision"] = revision

    def candidates(self, *functions: CandidateFunction) -> list[Hypervisor]:
        """The hypervisors that may take the guest, in order of preference, judged on one snapshot.

        Without functions, the context's. Raises NoCandidateError with the tally, NotFoundError naming the field
        "flavor" or "network" when that does not exist.
        """
        reading = self.context.store.read(*CLUSTER_SELECTORS)
        view = cluster_view(reading.revision, reading.ranges)
        flavor = view.flavors.get(self.flavor)
        if flavor is None:
            raise NotFoundError("flavor", self.flavor, field="flavor")
        if self.network not in view.networks:
            raise NotFoundError("network", self.network, field="network")
        subnets = tuple(view.subnets[id] for id in sorted(view.networks[self.network]))
        chosen = functions or self.context.candidate_functions
        request = GuestRequest(self, flavor.resources, subnets)
        remaining, _ = narrow(request, list(view.hypervisors.values()), chosen)
        if not remaining:
            decision = decide_one(view, self, chosen)
            assert isinstance(decision, Refused)  # the same view and functions just refused
            raise decision.to_error()
        return [self.context.hypervisor(hypervisor.id) for hypervisor in remaining]
