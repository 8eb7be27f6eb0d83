"""What does a job on a guest work with?

1. Whoever changes a guest holds its lock, which guestwatch takes too.
2. A domain is defined with the revision of the binding that allowed it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lochness.clock import Clock
from lochness.errors import ConflictError, DeadlineError, LochnessError, NotFoundError
from lochness.identity import GuestID
from lochness.store.protocol import Store
from lochness_node.agent.guests.disks import DiskFormat
from lochness_node.agent.guests.downloads import Downloads
from lochness_node.agent.guests.host_metadata import HostMetadata
from lochness_node.agent.guests.records import GuestRecords
from lochness_node.agent.guests.stopping import StopWatch
from lochness_node.agent.images.cache import ImageCache
from lochness_node.driver.bridges import Bridge, look_at_bridge
from lochness_node.driver.protocol import FOREIGN_DOMAIN, START_LIMIT_S, Domain, DomainType, Driver
from lochness_node.fencing import verify_start
from lochness_node.guest_lock import guest_lock

#: Tells how far a job is, in a few words.
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Host:
    """This hypervisor, as jobs see it.

    `domain_type` and `disk_format` may raise UnavailableError while libvirt is away.
    """

    hypervisor_id: str
    store: Store
    driver: Driver
    records: GuestRecords
    images: ImageCache
    stops: StopWatch
    domain_type: Callable[[], DomainType]
    disk_format: Callable[[], DiskFormat]
    downloads: Downloads
    metadata: HostMetadata
    clock: Clock
    lock_dir: Path
    lock_timeout_s: float
    shutdown_timeout_s: float

    def locked(self, guest_id: GuestID) -> AbstractContextManager[None]:
        """Nobody else works on the guest. Raises DeadlineError when it is not to be had in time."""
        return guest_lock(self.lock_dir, guest_id, timeout_s=self.lock_timeout_s)

    def verified_revision(self, guest_id: GuestID) -> int:
        """The fencing token for a start now. Raises ConflictError with the reason why not, UnavailableError."""
        return verify_start(self.store, self.hypervisor_id, guest_id)

    def domain(self, guest_id: GuestID) -> Domain | None:
        """The guest's domain, None when there is none. Raises ConflictError (foreign_domain) when it is not ours."""
        try:
            domain = self.driver.domain(guest_id)
        except NotFoundError:
            return None
        if domain.ownership is None:
            raise ConflictError(f"domain {guest_id} on this host is not ours", reason=FOREIGN_DOMAIN)
        return domain

    def bridge(self, name: str) -> Bridge:
        """What the host's bridge is. Raises UnavailableError, DeadlineError."""
        if self.domain_type() == "test":
            return Bridge()  # on paper, everything is carried
        return look_at_bridge(name, lambda: self.driver.host().libvirt_version)

    def start(self, guest_id: GuestID) -> None:
        """As `start_domain`."""
        start_domain(self.driver, guest_id)


def start_domain(driver: Driver, guest_id: GuestID) -> None:
    """Start the defined domain. An answer that did not come in time is looked for before it counts as a failure.

    Raises DeadlineError, also when libvirt is not done with the start yet and cannot be asked; as Driver.start else.
    """
    try:
        driver.start(guest_id, timeout_s=START_LIMIT_S)
    except DeadlineError:
        with contextlib.suppress(LochnessError):
            if driver.domain(guest_id).state.is_active:
                return
        raise
