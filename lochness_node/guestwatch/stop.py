"""May a domain that should not run be stopped now, and what came of it?

Invariants:
1. Nothing is stopped without the guest's lock, and it is not waited for: who holds it is at work on the guest.
2. Under the lock everything is looked at again, the store by a linearizable read. What is missing there counts as
   deleted only in a store that knows this hypervisor and is no older than the domain: an emptied etcd, or one that was
   restored from before the guest was made, stops nothing.

Not guaranteed: that the guest obeys the power button. The next time its plug is pulled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from lochness import keys
from lochness.errors import DeadlineError, DriverError, LochnessError, NotFoundError
from lochness.identity import GuestID
from lochness.model.guest import PowerRecord
from lochness.store.protocol import Key, Reading, Store
from lochness_node.driver.protocol import Domain, Driver
from lochness_node.guest_lock import guest_lock
from lochness_node.guestwatch.findings import FindingKind
from lochness_node.guestwatch.start import Busy, Failed, NotNeeded, Outcome, Refused, Started

HYPERVISOR_UNKNOWN: Final = "hypervisor_not_registered"
STORE_OLDER: Final = "store_older_than_domain"


def stop_stray(
    store: Store,
    driver: Driver,
    lock_dir: Path,
    hypervisor_id: str,
    guest_id: str,
    kind: FindingKind,
    how: Literal["shutdown", "destroy"],
) -> Outcome:
    """Stop the domain if that is still right. Raises nothing of Loch Ness: whatever goes wrong is an outcome."""
    try:
        with guest_lock(lock_dir, guest_id, timeout_s=0):
            try:
                return _stop_locked(store, driver, hypervisor_id, GuestID(guest_id), kind, how)
            except LochnessError as error:
                return Refused(error.reason, error.message)
    except DeadlineError:
        return Busy()
    except LochnessError as error:
        return Refused(error.reason, error.message)


def _stop_locked(
    store: Store,
    driver: Driver,
    hypervisor_id: str,
    guest_id: GuestID,
    kind: FindingKind,
    how: Literal["shutdown", "destroy"],
) -> Outcome:
    try:
        domain = driver.domain(guest_id)
    except NotFoundError:
        return NotNeeded()
    if not domain.state.is_active or domain.ownership is None:
        return NotNeeded()
    reading = store.read(
        Key(keys.hypervisor(hypervisor_id)),
        Key(keys.hypervisor_guest(hypervisor_id, guest_id)),
        Key(keys.guest(guest_id)),
        Key(keys.guest_power(guest_id)),
    )
    objection = decide_stop(reading, hypervisor_id, domain, kind)
    if objection is not None:
        return objection
    try:
        if how == "shutdown":
            driver.shutdown(guest_id)
        else:
            driver.destroy(guest_id)
    except (DriverError, DeadlineError) as error:
        return Failed(error.message)
    return Started(domain.ownership.binding_revision)


def decide_stop(reading: Reading, hypervisor_id: str, domain: Domain, kind: FindingKind) -> Refused | NotNeeded | None:
    """None when it may be stopped. `reading` has the hypervisor, the binding here, the guest and its wish."""
    registered, binding, record, power = (reading.one(index) for index in range(4))
    revision = domain.ownership.binding_revision if domain.ownership else 0
    if registered is None:
        return Refused(
            HYPERVISOR_UNKNOWN, f"hypervisor {hypervisor_id} is not registered, so nothing missing counts as deleted"
        )
    if reading.revision < revision:
        return Refused(
            STORE_OLDER,
            f"the domain was defined under revision {revision}, the store is at {reading.revision}: "
            "it was emptied or restored from an older state",
        )
    is_bound = binding is not None and record is not None
    if kind is FindingKind.UNBOUND:
        return NotNeeded() if is_bound else None
    is_unwanted = is_bound and power is not None and PowerRecord.from_json(power.value).desired == "stopped"
    return None if is_unwanted else NotNeeded()
