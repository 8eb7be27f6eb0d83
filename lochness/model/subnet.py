"""A subnet: an IP network with a range of addresses that guests may get."""

from __future__ import annotations

from lochness.model.address import IPAddress, IPNetwork, normalized_ip, normalized_network, parse_ip, parse_network
from lochness.model.record import Metadata, Record, normalized_id, require, require_id


class SubnetRecord(Record):
    """subnets/ID/metadata.

    `network` is the id of the network it belongs to ("": none yet), `cidr` its IPv4 or IPv6 network, `start` and `end`
    the first and last address a guest may get, both inside the cidr. `gateway` may be "" and is never given to a
    guest, nor are the network's own addresses: its first and, in IPv4, its broadcast address.
    """

    id: str = ""
    metadata: Metadata = {}
    network: str = ""
    gateway: str = ""
    cidr: str = ""
    start: str = ""
    end: str = ""

    @property
    def ip_network(self) -> IPNetwork:
        return parse_network(self.cidr, "cidr")

    @property
    def first(self) -> IPAddress:
        return parse_ip(self.start, "start")

    @property
    def last(self) -> IPAddress:
        return parse_ip(self.end, "end")

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")
        self.network = normalized_id(self.network, "network")
        self.gateway = normalized_ip(self.gateway, "gateway")
        self.cidr = normalized_network(self.cidr, "cidr")
        self.start = normalized_ip(self.start, "start")
        self.end = normalized_ip(self.end, "end")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        for field in ("cidr", "start", "end"):
            require(bool(getattr(self, field)), f"{field} is required", field)
        network = self.ip_network
        for field in ("start", "end", "gateway"):
            text = getattr(self, field)
            inside = not text or parse_ip(text, field) in network
            require(inside, f"{field} {text} is not inside {self.cidr}", field)
        require(int(self.first) <= int(self.last), f"start {self.start} is after end {self.end}", "start")
