"""A flavor: a template of virtual resources, and the image a guest of it starts from."""

from __future__ import annotations

from lochness.model.record import Metadata, Quantity, Record, SmallQuantity, normalized_id, require, require_id
from lochness.model.resources import Resources


class FlavorRecord(Record):
    """flavors/ID/metadata. `image` is an image's id; memory in MB, disk in MB, cpu in vCPUs."""

    id: str = ""
    image: str = ""
    metadata: Metadata = {}
    memory: Quantity = 0
    disk: Quantity = 0
    cpu: SmallQuantity = 0

    @property
    def resources(self) -> Resources:
        """What one guest of this flavor takes."""
        return Resources(memory=self.memory, disk=self.disk, cpu=self.cpu)

    def normalize(self) -> None:
        self.id = normalized_id(self.id, "id")
        self.image = normalized_id(self.image, "image")

    def validate(self) -> None:
        super().validate()
        require_id(self.id, "id")
        require_id(self.image, "image")
        require(self.memory > 0, f"memory must be at least 1 MB, got {self.memory}", "memory")
        require(self.cpu > 0, f"cpu must be at least 1, got {self.cpu}", "cpu")
