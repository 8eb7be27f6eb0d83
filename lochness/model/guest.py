"""A guest: a virtual machine, what it is asked to be, and what is seen of it."""

from __future__ import annotations

from typing import Any, Literal

from lochness.model.address import normalized_ip, normalized_mac
from lochness.model.record import Metadata, Quantity, Record, normalized_id, require, require_id
from lochness.model.resources import Resources

Power = Literal["running", "stopped", "paused"]

GuestState = Literal["running", "stopped", "paused", "shutting_down", "crashed", "missing", "unknown"]


class GuestRecord(Record, forbid_unknown_fields=True):
    """guests/ID/metadata.

    `hypervisor`, `subnet`, `ip` and `bridge` are blank until the guest is placed. flavor, hypervisor, network, subnet,
    fwgroup and vlangroup are ids.
    """

    id: str = ""
    metadata: Metadata = {}
    type: str = ""
    flavor: str = ""
    hypervisor: str = ""
    network: str = ""
    subnet: str = ""
    fwgroup: str = ""
    vlangroup: str = ""
    mac: str = ""
    ip: str = ""
    bridge: str = ""

    @property
    def is_placed(self) -> bool:
        """Whether a hypervisor has been chosen."""
        return bool(self.hypervisor)

    @property
    def group(self) -> str:
        """Those it is to be kept apart from, or together with ("": nobody)."""
        return self.metadata.get("group", "")

    def normalize(self) -> None:
        for field in ("id", "flavor", "hypervisor", "network", "subnet", "fwgroup", "vlangroup"):
            value = getattr(self, field)
            if value and (normal := normalized_id(value, field)) is not value:
                setattr(self, field, normal)
        self.mac = normalized_mac(self.mac)
        self.ip = normalized_ip(self.ip, "ip")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        require_id(self.flavor, "flavor")
        require_id(self.network, "network")
        require(bool(self.mac), "mac is required", "mac")
        require(self.type in ("", "kvm"), f"type must be kvm, got {self.type!r}", "type")


class Binding(Record, forbid_unknown_fields=True):
    """hypervisors/ID/guests/GUEST: the guest belongs on this hypervisor and holds this much of it.

    memory in MB, disk in MB, cpu in vCPUs: the flavor as it was when the guest was placed, so that editing a flavor
    never changes what running guests hold. `placed_at` is RFC 3339, `group` the guest's (its metadata "group") then.
    The key's mod_revision is the fencing token.
    """

    memory: Quantity = 0
    disk: Quantity = 0
    cpu: Quantity = 0
    placed_at: str = ""
    group: str = ""

    @property
    def claim(self) -> Resources:
        return Resources(memory=self.memory, disk=self.disk, cpu=self.cpu)


class PowerRecord(Record):
    """guests/ID/power: what the guest should be."""

    desired: Power = "running"


class GuestStatus(Record):
    """guests/ID/status: what the guest is, as guestwatch saw it on `hypervisor`.

    `since` (RFC 3339) is when this state was first seen, `binding_revision` the fencing token it was seen under.
    """

    state: GuestState = "unknown"
    reason: str = ""
    since: str = ""
    hypervisor: str = ""
    binding_revision: Quantity = 0
    details: dict[str, Any] = {}
