"""What does each action do to a guest that is here?

1. start and resume are allowed only as a create is: while the guest is bound here (fencing).
2. A guest is started under the binding of now: a domain that was defined under another is defined anew first.
3. Each is idempotent except reboot and restart, and all but those two end well when there is nothing left to do.

The lock is not held while a guest takes its time to shut down; guestwatch looks at it meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from lochness.errors import LochnessError, NotFoundError
from lochness.identity import GuestID
from lochness_node.agent.guests.create import delete_guest, planned
from lochness_node.agent.guests.host import Host, Progress
from lochness_node.agent.guests.plan import images_of
from lochness_node.agent.wire import ACTIONS, DELETE
from lochness_node.driver.protocol import Domain, DomainState

#: A guest that boots needs some seconds until it listens; one that listens does not mind.
PRESS_AGAIN_S: Final = 5.0


def perform_action(host: Host, guest_id: GuestID, action: str, progress: Progress) -> str:
    """Do `action`, one of wire.ACTIONS, and answer the closing message.

    Raises NotFoundError (no such guest here), ConflictError (not bound here, foreign_domain), DriverError (not in a
    state for it), UnavailableError, DeadlineError.
    """
    return _ACTIONS[action](host, guest_id, progress)


def start_guest(host: Host, guest_id: GuestID, progress: Progress) -> str:
    """Start the guest, whose lock the caller holds. Raises as `perform_action`."""
    revision = host.verified_revision(guest_id)
    domain = host.domain(guest_id)
    if domain is not None and domain.state.is_active:
        return f"guest {guest_id} is {domain.state} already"
    if domain is None or _token(domain) != revision:
        guest = host.records.require(guest_id)
        progress(f"defining the domain under binding revision {revision}")
        with host.images.held(images_of(guest)) as images:
            host.driver.define(planned(host, guest, images, revision).spec)
    host.start(guest_id)
    return f"guest {guest_id} was started"


def _start(host: Host, guest_id: GuestID, progress: Progress) -> str:
    with host.locked(guest_id):
        return start_guest(host, guest_id, progress)


def _shutdown(host: Host, guest_id: GuestID, progress: Progress) -> str:
    with host.locked(guest_id):
        if not _required(host, guest_id).state.is_active:
            return f"guest {guest_id} was not running"
        host.driver.shutdown(guest_id)
    if _obeyed(host, guest_id, progress):
        return f"guest {guest_id} shut down by itself"
    with host.locked(guest_id):
        host.driver.destroy(guest_id)
    return f"guest {guest_id} did not shut down within {host.shutdown_timeout_s:g} s, its power was cut"


def _obeyed(host: Host, guest_id: GuestID, progress: Progress) -> bool:
    """Whether the guest stops in time. One that is still booting misses the button, so it is pressed again."""
    deadline_s = host.clock.monotonic_s() + host.shutdown_timeout_s
    presses = 1
    while (left_s := deadline_s - host.clock.monotonic_s()) > 0:
        progress(f"waiting up to {left_s:.0f} s for the guest to shut down, power button pressed {presses}x")
        if host.stops.wait(guest_id, min(left_s, PRESS_AGAIN_S)):
            return True
        with contextlib.suppress(LochnessError):
            # Gone just now, or libvirt away for a while: the next look tells.
            host.driver.shutdown(guest_id)
            presses += 1
    return host.stops.wait(guest_id, 0)


def _poweroff(host: Host, guest_id: GuestID, _: Progress) -> str:
    with host.locked(guest_id):
        _required(host, guest_id)
        host.driver.destroy(guest_id)
    return f"guest {guest_id} is off"


def _reboot(host: Host, guest_id: GuestID, _: Progress) -> str:
    with host.locked(guest_id):
        _required(host, guest_id)
        host.driver.reboot(guest_id)
    return f"guest {guest_id} was asked to reboot"


def _restart(host: Host, guest_id: GuestID, _: Progress) -> str:
    with host.locked(guest_id):
        _required(host, guest_id)
        host.driver.reset(guest_id)
    return f"guest {guest_id} was reset"


def _suspend(host: Host, guest_id: GuestID, _: Progress) -> str:
    with host.locked(guest_id):
        _required(host, guest_id)
        host.driver.suspend(guest_id)
    return f"guest {guest_id} is suspended"


def _resume(host: Host, guest_id: GuestID, _: Progress) -> str:
    with host.locked(guest_id):
        host.verified_revision(guest_id)
        _required(host, guest_id)
        host.driver.resume(guest_id)
        state = _required(host, guest_id).state
    return f"guest {guest_id} is {'running' if state is DomainState.RUNNING else state}"


def _required(host: Host, guest_id: GuestID) -> Domain:
    if (domain := host.domain(guest_id)) is None:
        raise NotFoundError("guest", guest_id)
    return domain


def _token(domain: Domain) -> int:
    return domain.ownership.binding_revision if domain.ownership else 0


_ACTIONS: Final[Mapping[str, Callable[[Host, GuestID, Progress], str]]] = {
    "shutdown": _shutdown,
    "reboot": _reboot,
    "restart": _restart,
    "poweroff": _poweroff,
    "start": _start,
    "suspend": _suspend,
    "resume": _resume,
    DELETE: delete_guest,
}
assert set(_ACTIONS) == set(ACTIONS)
