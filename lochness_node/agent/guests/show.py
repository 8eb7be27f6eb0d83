"""How does the agent show its guests?

A guest is here when it is remembered or has a domain of ours; its state is libvirt's of this moment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lochness.errors import ConflictError, NotFoundError
from lochness.identity import GuestID
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.plan import device, shown_disks
from lochness_node.agent.wire import Guest
from lochness_node.driver.protocol import Domain, DomainState, Metrics

MISSING: Final = "missing"

#: libvirt's states in the words of the guest's status (lochness.model.guest.GuestState).
_STATES: Final = {
    DomainState.RUNNING: "running",
    DomainState.PAUSED: "paused",
    DomainState.SLEEPING: "paused",
    DomainState.STOPPING: "shutting_down",
    DomainState.STOPPED: "stopped",
    DomainState.CRASHED: "crashed",
    DomainState.UNKNOWN: "unknown",
}


def show_guest(host: Host, guest_id: GuestID) -> Guest:
    """Raises NotFoundError, UnavailableError, DeadlineError."""
    guest, domain = host.records.remembered(guest_id), _own_domain(host, guest_id)
    if guest is None and domain is None:
        raise NotFoundError("guest", guest_id)
    return shown(host, guest_id, guest, domain)


def show_guests(host: Host) -> list[Guest]:
    """Every guest that is here, by id. Raises UnavailableError, DeadlineError."""
    domains = {GuestID(domain.uuid): domain for domain in host.driver.domains() if domain.ownership is not None}
    guests = []
    for guest_id in sorted({*domains, *host.records.ids()}):
        guest, domain = host.records.remembered(guest_id), domains.get(guest_id)
        if guest is not None or domain is not None:
            guests.append(shown(host, guest_id, guest, domain))
    return guests


def shown(host: Host, guest_id: GuestID, guest: Guest | None, domain: Domain | None) -> Guest:
    """The guest as answered: as remembered, with its disks' places and its state."""
    if guest is None:
        guest = Guest(id=guest_id)
        if domain is not None:
            guest.memory, guest.cpu = domain.memory_mb, domain.vcpus
    guest.disks = shown_disks(guest, host.records.path(guest_id), host.disk_format()) if guest.disks else []
    guest.state = _STATES[domain.state] if domain is not None else MISSING
    return guest


def show_metrics(host: Host, guest_id: GuestID) -> Metrics:
    """The domain's counters, but not those of its seed, which is no disk of the guest's.

    Raises NotFoundError, UnavailableError, DeadlineError, DriverError.
    """
    if _own_domain(host, guest_id) is None:
        raise NotFoundError("guest", guest_id)
    metrics = host.driver.metrics(guest_id)
    if (guest := host.records.remembered(guest_id)) is None:
        return metrics
    own = {device(index) for index in range(len(guest.disks))}
    return replace(metrics, disks=tuple(disk for disk in metrics.disks if disk.disk in own))


def _own_domain(host: Host, guest_id: GuestID) -> Domain | None:
    try:
        return host.domain(guest_id)
    except ConflictError:  # a foreign domain under that id is not a guest of ours
        return None
