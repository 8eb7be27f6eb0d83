"""A network: a logical collection of subnets; guests ask for a network."""

from __future__ import annotations

from lochness.model.record import Metadata, Record, normalized_id, require_id


class NetworkRecord(Record):
    """networks/ID/metadata."""

    id: str = ""
    metadata: Metadata = {}

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
