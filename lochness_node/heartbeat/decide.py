"""What does a beat do about the key hypervisors/ID/heartbeat, given what was read?

1. The key is written only while the hypervisor is registered: an unknown machine must not look alive.
2. Another machine's key under our ID is never touched. It may be what is left of a machine we replace, so it has two
   lifetimes of its lease to vanish (one, and one more for an election of etcd's leader, which starts every lease anew).
   A key that outlives them is being renewed: two machines have one ID, and this one refuses to go on.
3. On one machine the newest daemon has the key. A predecessor that was killed leaves its key behind; it is taken over
   without a gap. A predecessor that lives sees that and stops. So two never fight.

Not guaranteed: that two machines without a machine id and with the same name are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lochness.model.hypervisor import HeartbeatRecord

#: How many lifetimes of its lease another machine's key may stay before that means that it is being renewed.
FOREIGN_LIFETIMES: Final = 2
#: For a foreign key that does not tell its ttl: our default.
UNKNOWN_TTL_S: Final = 30


@dataclass(frozen=True, slots=True)
class Own:
    """This daemon: its machine (`machine` "" for unknown) and the lease it has just renewed, 0 for none.

    `has_written` tells whether it has written its key under that lease.
    """

    host: str
    machine: str
    lease_id: int
    has_written: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """One reading. `key_lease_id` and `holder` are those of the key; `holder` None: there is no key.

    `key_revision` is the key's mod_revision (0: no key). `key_age_s` is for how long this same key, by its creation,
    has been seen by this daemon.
    """

    is_registered: bool
    holder: HeartbeatRecord | None = None
    key_lease_id: int = 0
    key_revision: int = 0
    key_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Beating:
    """The key is ours; renewing the lease was all there was to do."""


@dataclass(frozen=True, slots=True)
class WriteKey:
    """Write the key under our lease (a new one, if we have none), provided that it is as it was read."""

    expected_revision: int


@dataclass(frozen=True, slots=True)
class StandBack:
    """The hypervisor is not registered: hold no lease, look again."""


@dataclass(frozen=True, slots=True)
class AwaitEnd:
    """Another machine has the key: hold no lease, wait for its end, at most `limit_s` after it was first seen."""

    holder: HeartbeatRecord
    limit_s: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Somebody else beats under our ID; end, saying `text`. A person must act."""

    text: str


Action = Beating | WriteKey | StandBack | AwaitEnd | Refuse


def decide(hypervisor_id: str, own: Own, seen: Seen) -> Action:
    """What this beat does, see the module's rules."""
    if not seen.is_registered:
        return StandBack()
    if seen.holder is None:
        return WriteKey(expected_revision=0)
    if own.lease_id and seen.key_lease_id == own.lease_id:
        return Beating()
    if is_other_machine(own, seen.holder):
        limit_s = FOREIGN_LIFETIMES * float(seen.holder.ttl_s or UNKNOWN_TTL_S)
        if seen.key_age_s <= limit_s:
            return AwaitEnd(seen.holder, limit_s)
        return Refuse(
            f"hypervisor {hypervisor_id} is beating on another machine: {_described(seen.holder)} has renewed its "
            f"lease for {seen.key_age_s:.0f} s; give one of the two machines another ID"
        )
    if own.lease_id and own.has_written:
        return Refuse(
            f"another heartbeat daemon of hypervisor {hypervisor_id} has taken over on this machine: "
            f"{_described(seen.holder)}"
        )
    return WriteKey(expected_revision=seen.key_revision)


def is_other_machine(own: Own, holder: HeartbeatRecord) -> bool:
    """Whether the key was written on another machine: by machine id if both are known, else by name."""
    if own.machine and holder.machine:
        return own.machine != holder.machine
    return bool(holder.host) and own.host != holder.host


def _described(holder: HeartbeatRecord) -> str:
    machine = f", machine id {holder.machine}" if holder.machine else ""
    return f"{holder.host or 'an unnamed host'} (pid {holder.pid}{machine}, since {holder.since or 'unknown'})"
