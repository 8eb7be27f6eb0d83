"""May this machine start this guest now?

Invariants:
1. Yes only if, at one revision of a linearizable read, the guest is bound to this hypervisor, its record names this
   hypervisor, and this hypervisor's own heartbeat key exists: whoever starts a guest holds its binding and its lease.
2. The answer is the fencing token: the mod_revision of the binding. It goes into the domain's metadata.
3. A failed read is no answer: the error reaches the caller, and nothing is started.

Not guaranteed: that the binding still stands a moment later. Placement never moves a binding off a hypervisor that is
alive without its agent's doing, which is why the lease is part of the question.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lochness import keys
from lochness.errors import ConflictError
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HeartbeatRecord
from lochness.store.protocol import Key, Reading, Store

Reason = Literal["not_bound_here", "bound_elsewhere", "lease_missing"]

NOT_BOUND_HERE: Final = "not_bound_here"
BOUND_ELSEWHERE: Final = "bound_elsewhere"
LEASE_MISSING: Final = "lease_missing"

_MACHINE_ID_FILE: Final = Path("/etc/machine-id")


@dataclass(frozen=True, slots=True)
class StartRefused:
    """Why the guest must not be started here; `text` has the ids, `keys` are what a change would have to change."""

    reason: Reason
    text: str
    keys: tuple[str, ...]


def verify_start(store: Store, hypervisor_id: str, guest_id: str) -> int:
    """The fencing token under which `guest_id` may be started on `hypervisor_id` (a revision of the store).

    Raises ConflictError with the reason "not_bound_here" (no binding here, or no guest record), "bound_elsewhere" (the
    record names another hypervisor) or "lease_missing" (no heartbeat, or another machine's under our ID);
    UnavailableError when the store was not reached; ValidationError when a record in it is malformed.
    """
    reading = store.read(*start_selectors(hypervisor_id, guest_id))
    answer = decide_start(reading, hypervisor_id, guest_id, this_machine())
    if isinstance(answer, StartRefused):
        raise ConflictError(answer.text, keys=answer.keys, reason=answer.reason)
    return answer


def start_selectors(hypervisor_id: str, guest_id: str) -> tuple[Key, Key, Key]:
    """What `decide_start` wants to be read, in its order."""
    return (
        Key(keys.hypervisor_guest(hypervisor_id, guest_id)),
        Key(keys.hypervisor_heartbeat(hypervisor_id)),
        Key(keys.guest(guest_id)),
    )


def decide_start(reading: Reading, hypervisor_id: str, guest_id: str, machine: str) -> int | StartRefused:
    """The decision on a reading of `start_selectors`. `machine` is what `this_machine` answers, "" for unknown."""
    binding, heartbeat, record = reading.one(0), reading.one(1), reading.one(2)
    where = (keys.hypervisor_guest(hypervisor_id, guest_id), keys.guest(guest_id))
    if record is None:
        return StartRefused(NOT_BOUND_HERE, f"guest {guest_id} does not exist (hypervisor {hypervisor_id})", where)
    owner = GuestRecord.from_json(record.value).hypervisor
    if owner not in ("", hypervisor_id):
        return StartRefused(
            BOUND_ELSEWHERE, f"guest {guest_id} belongs to hypervisor {owner}, not to {hypervisor_id}", where
        )
    if binding is None or not owner:
        return StartRefused(NOT_BOUND_HERE, f"guest {guest_id} is not bound to hypervisor {hypervisor_id}", where)
    lease_key = keys.hypervisor_heartbeat(hypervisor_id)
    if heartbeat is None:
        return StartRefused(
            LEASE_MISSING,
            f"hypervisor {hypervisor_id} holds no lease (is lochness-heartbeat running?), "
            f"so guest {guest_id} must not start",
            (lease_key,),
        )
    beating = HeartbeatRecord.from_json(heartbeat.value)
    if machine and beating.machine and beating.machine != machine:
        return StartRefused(
            LEASE_MISSING,
            f"the lease of hypervisor {hypervisor_id} is held by another machine, {beating.host} "
            f"(machine id {beating.machine}, this is {machine}), so guest {guest_id} must not start",
            (lease_key,),
        )
    return binding.mod_revision


def this_machine() -> str:
    """What tells this installation from every other: /etc/machine-id, "" when there is none.

    Not the hostname: that may change under a running daemon.
    """
    try:
        return _MACHINE_ID_FILE.read_text().strip()
    except OSError:
        return ""


def this_host() -> str:
    """This machine's name, for people."""
    return socket.gethostname()
