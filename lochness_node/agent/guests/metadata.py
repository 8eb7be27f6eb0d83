"""How does a guest's metadata change?

1. A change is on the disk when its answer goes out, whole; two at a time lose nothing of each other.
2. A guest's seed follows its metadata: what cloud-init reads at the guest's next boot is what was set last.

Not guaranteed: that a guest that runs notices; that the controller's record of the guest changes with it.
"""

from __future__ import annotations

from collections.abc import Mapping

from lochness.errors import NotFoundError, UnavailableError
from lochness.identity import GuestID
from lochness.model.record import Metadata
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.host_metadata import patched
from lochness_node.agent.guests.iso import write_seed
from lochness_node.agent.guests.plan import SEED_FILE
from lochness_node.agent.guests.seed import seed_for


def guest_metadata(host: Host, guest_id: GuestID) -> Metadata:
    """Raises NotFoundError, UnavailableError."""
    if (guest := host.records.remembered(guest_id)) is not None:
        return guest.metadata
    if host.domain(guest_id) is None:
        raise NotFoundError("guest", guest_id)
    return {}  # its record was lost; its domain is here


def patch_guest_metadata(host: Host, guest_id: GuestID, changes: Mapping[str, str | None]) -> Metadata:
    """The whole afterwards. Raises NotFoundError, ValidationError, UnavailableError, DeadlineError."""
    with host.locked(guest_id):
        guest = host.records.require(guest_id)
        guest.metadata = patched(guest.metadata, changes)
        guest.validate()
        try:
            host.records.remember(guest)
            # A running guest keeps the file it has open; the new one is for its next start.
            write_seed(host.records.path(guest_id) / SEED_FILE, seed_for(guest))
        except OSError as error:
            raise UnavailableError(f"cannot write in {host.records.path(guest_id)}: {error.strerror}") from error
        return guest.metadata
