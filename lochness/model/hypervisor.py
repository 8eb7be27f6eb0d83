"""A hypervisor: a physical machine, as its operator describes it and as its daemons report it."""

from __future__ import annotations

from typing import Any

import msgspec

from lochness.model.address import normalized_ip, normalized_mac
from lochness.model.record import JSONObject, Metadata, Record, normalized_id, require_id
from lochness.model.resources import Resources

_REPORTED = ("total_resources", "available_resources")


class HypervisorRecord(Record):
    """The joined record of the API.

    The operator's part (everything but the resources) is the value of hypervisors/ID/metadata; the resources are those
    of hypervisors/ID/resources. They are joined on reading and split on saving, so each key keeps one writer.
    """

    id: str = ""
    metadata: Metadata = {}
    ip: str = ""
    netmask: str = ""
    gateway: str = ""
    mac: str = ""
    total_resources: Resources = Resources()
    available_resources: Resources = Resources()

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")
        self.ip = normalized_ip(self.ip, "ip")
        self.netmask = normalized_ip(self.netmask, "netmask")
        self.gateway = normalized_ip(self.gateway, "gateway")
        self.mac = normalized_mac(self.mac)

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")

    def operator_part(self) -> bytes:
        """The value of the metadata key."""
        fields: JSONObject = {name: value for name, value in self.to_fields().items() if name not in _REPORTED}
        return msgspec.json.encode(fields)


class HeartbeatRecord(Record):
    """hypervisors/ID/heartbeat, under a lease: it exists while the hypervisor's heartbeat daemon renews the lease.

    `host` is the machine's name, `machine` its /etc/machine-id ("" when it has none), `pid` the daemon's, `since`
    (RFC 3339) when this lease was granted, `versions` those of Loch Ness, Python and the kernel by name.
    """

    host: str = ""
    machine: str = ""
    pid: int = 0
    since: str = ""
    ttl_s: int = 0
    versions: dict[str, Any] = {}
