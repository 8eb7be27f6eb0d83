"""May a guest that should run be started or resumed now, and what came of it?

Invariants:
1. Nothing is started without the guest's lock, and it is not waited for: who holds it is at work on the guest.
2. Under the lock everything is looked at again; the last look before the start is the linearizable read of `fencing`,
   with the operator's wish in the same reading.

Not guaranteed: that a started guest gets anywhere. The next pass sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lochness import keys
from lochness.errors import DeadlineError, DriverError, LochnessError, NotFoundError
from lochness.identity import GuestID
from lochness.model.guest import PowerRecord
from lochness.store.protocol import Key, Store
from lochness_node.driver.protocol import Driver
from lochness_node.fencing import StartRefused, decide_start, start_selectors, this_machine
from lochness_node.guest_lock import guest_lock
from lochness_node.guestwatch.policy import is_down, is_resumable


@dataclass(frozen=True, slots=True)
class Started:
    """It was started or resumed under this fencing token."""

    binding_revision: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody is at work on the guest."""


@dataclass(frozen=True, slots=True)
class NotNeeded:
    """It is no longer down or paused, no longer defined, or no longer wanted running."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not tried: `reason` is a stable word, `text` says why."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It was tried and failed."""

    text: str


Outcome = Started | Busy | NotNeeded | Refused | Failed


def start_missed(
    store: Store, driver: Driver, lock_dir: Path, hypervisor_id: str, guest_id: str, what: Literal["start", "resume"]
) -> Outcome:
    """Start or resume the guest if that is still right. Raises nothing of Loch Ness: what goes wrong is an outcome."""
    try:
        with guest_lock(lock_dir, guest_id, timeout_s=0):
            try:
                return _start_locked(store, driver, hypervisor_id, GuestID(guest_id), what)
            except LochnessError as error:
                return Refused(error.reason, error.message)
    except DeadlineError:
        return Busy()
    except LochnessError as error:
        return Refused(error.reason, error.message)


def _start_locked(
    store: Store, driver: Driver, hypervisor_id: str, guest_id: GuestID, what: Literal["start", "resume"]
) -> Outcome:
    try:
        domain = driver.domain(guest_id)
    except NotFoundError:
        return NotNeeded()
    is_needed = is_down(domain) if what == "start" else is_resumable(domain)
    if not is_needed or domain.ownership is None:
        return NotNeeded()
    reading = store.read(*start_selectors(hypervisor_id, guest_id), Key(keys.guest_power(guest_id)))
    answer = decide_start(reading, hypervisor_id, guest_id, this_machine())
    if isinstance(answer, StartRefused):
        return Refused(answer.reason, answer.text)
    power = reading.one(3)
    if power is None or PowerRecord.from_json(power.value).desired != "running":
        return NotNeeded()
    if domain.ownership.binding_revision != answer:
        return NotNeeded()  # it was bound anew meanwhile; the next pass sees that
    try:
        if what == "start":
            driver.start(guest_id)
        else:
            driver.resume(guest_id)
    except (DriverError, DeadlineError) as error:
        return Failed(error.message)
    return Started(answer)
