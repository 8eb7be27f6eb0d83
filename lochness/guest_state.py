"""What is shown of a guest's state, when the hypervisor it is on may be dead? Pure.

guests/ID/status has one writer, the hypervisor's guestwatch, and a dead hypervisor's guestwatch writes nothing more. So
the stored status stands as it was last seen, and who shows it joins it with the hypervisor's heartbeat.

Invariant: "running" is never shown for a guest whose hypervisor is not known to be alive.

Not guaranteed: that a guest shown as unknown has stopped. A hypervisor that is cut off from etcd goes on running its
guests.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lochness.model.guest import GuestStatus
from lochness.model.record import Record

#: The reasons that a derived "unknown" has.
HYPERVISOR_LOST = "hypervisor_lost"
HYPERVISOR_GONE = "hypervisor_not_registered"


class LostRecord(Record):
    """hypervisors/ID/lost: the heartbeat is missing since then (RFC 3339), as the controllers saw it."""

    since: str = ""


@dataclass(frozen=True, slots=True)
class HypervisorSeen:
    """Whether a hypervisor is registered and beats, and if it does not, since when ("": not known)."""

    is_registered: bool = True
    is_alive: bool = True
    lost_since: str = ""


ALIVE = HypervisorSeen()


def shown_status(status: GuestStatus, hypervisor: str, seen: HypervisorSeen) -> GuestStatus:
    """The status to show for a guest that is placed on `hypervisor` ("": nowhere), which was `seen` so.

    A derived status keeps what was seen last in `details`: `last_state` and `last_seen_since`.
    """
    if not hypervisor or (seen.is_registered and seen.is_alive):
        return status
    reason = HYPERVISOR_LOST if seen.is_registered else HYPERVISOR_GONE
    details = {**status.details, "last_state": status.state, "last_seen_since": status.since}
    return msgspec.structs.replace(
        status, state="unknown", reason=reason, since=seen.lost_since, hypervisor=hypervisor, details=details
    )
