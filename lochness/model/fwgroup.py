"""A firewall group: rules for a guest's incoming traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from lochness.model.address import IPNetwork, normalized_network, parse_network
from lochness.model.record import JSONObject, Metadata, Record, normalized_id, require, require_id

MAX_PORT: Final = 65535


class FWRule(Record, rename={"port_start": "portStart", "port_end": "portEnd"}):
    """One rule. Traffic matches when it comes from `source` (a network as CIDR text; None: not looked at) or from a
    guest of the firewall group `group` (an id; "": not looked at), to a port from `port_start` to `port_end` (0 to
    65535), by `protocol` ("tcp", "udp", "icmp" ...; "": any). `action` says what happens then ("allow", "deny").
    """

    source: str | None = None
    group: str = ""
    port_start: int = 0
    port_end: int = 0
    protocol: str = ""
    action: str = ""

    @property
    def source_network(self) -> IPNetwork | None:
        return parse_network(self.source, "source") if self.source else None

    def normalize(self) -> None:
        self.source = normalized_network(self.source, "source") or None if self.source else None
        self.group = normalized_id(self.group, "group")

    def to_fields(self) -> JSONObject:
        """As existing clients expect it: `source` is left out when there is none."""
        fields = super().to_fields()
        if self.source is None:
            del fields["source"]
        return fields


class FWGroupRecord(Record):
    """fwgroups/ID/metadata."""

    id: str = ""
    metadata: Metadata = {}
    rules: list[FWRule] = []

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        group = super().from_fields(fields)
        group.rules = [FWRule.from_fields(rule) for rule in fields.get("rules", ())]  # with what they do not know
        return group

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        for number, rule in enumerate(self.rules):
            place = f"rules[{number}]"
            rule.validate()
            for field, port in (("portStart", rule.port_start), ("portEnd", rule.port_end)):
                text = f"{place}.{field} must be 0 to {MAX_PORT}, got {port}"
                require(0 <= port <= MAX_PORT, text, f"{place}.{field}")
            text = f"{place}: portStart {rule.port_start} is after portEnd {rule.port_end}"
            require(rule.port_start <= rule.port_end, text, f"{place}.portStart")

    def to_fields(self) -> dict[str, Any]:
        return {**super().to_fields(), "rules": [rule.to_fields() for rule in self.rules]}

    def to_json(self) -> bytes:
        return msgspec.json.encode(self.to_fields())
