"""Which controllers are running? Each holds a lease with a key that says so, and a job is its own while it does.

Invariants:
1. This controller counts as running here, whatever the store says: it is.
   The leader is the one that has been running longest: new jobs are its own, so that two do not do the same work. No
   promise rests on there being exactly one.
2. A controller that was killed on this machine is known to be dead at the next look, one elsewhere when its lease
   ends: a watch tells of that at once.
3. The store's loss and its return are logged once each.

Not guaranteed: that a controller whose lease has ended does nothing any more. Every write it makes is compared with
the job's revision, so it notices when it has lost one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from lochness import events, keys
from lochness.clock import Clock
from lochness.errors import ConflictError, LeaseNotFoundError, LochnessError
from lochness.ids import new_id
from lochness.log import get_logger
from lochness.model.job import rfc3339
from lochness.store.protocol import Delete, KeyUnchanged, KeyValue, Prefix, Put, Store
from lochness.store.watching import Watching

_RETRY_S: Final = 1.0
_LOOK_PAUSE_S: Final = 0.02

_log = get_logger("controller")


class ControllerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """controllers/ID. `boot`, `pid_namespace`, `pid` and `started` (in clock ticks after the boot) name its process."""

    id: str
    host: str = ""
    since: str = ""
    boot: str = ""
    pid_namespace: str = ""
    pid: int = 0
    started: str = ""


def own_record(id: str, since: str) -> ControllerRecord:
    """The record of this process."""
    return ControllerRecord(
        id=id,
        host=socket.gethostname(),
        since=since,
        boot=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        started=_started(os.getpid()),
    )


def is_known_dead(record: ControllerRecord) -> bool:
    """Whether the process ran on this machine, where this one could see it, and is gone."""
    here = bool(record.boot) and (record.boot, record.pid_namespace) == (_boot_id(), _pid_namespace())
    return here and record.started != _started(record.pid)


class Presence:
    """Keeps this controller's lease in a thread of its own, and knows who else is running."""

    def __init__(self, store: Store, clock: Clock, *, ttl_s: int, on_change: Callable[[], None]) -> None:
        self.id: Final = new_id()
        #: Set while the store answers.
        self.has_store = threading.Event()
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s
        self._on_change = on_change
        self._alive = frozenset({self.id})
        self._leader = ""
        self._lease_id = 0
        self._is_lost_told = False
        self._stopping = threading.Event()
        self._is_to_look = threading.Event()
        self._watching = Watching(
            store,
            keys.CONTROLLER_PATH,
            on_snapshot=lambda _reading: None,
            on_batch=lambda _batch: self._is_to_look.set(),
            on_transition=lambda _event, _fields: None,  # the look itself tells of a store that is away
        )
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    @property
    def alive(self) -> frozenset[str]:
        """The ids of the running controllers, as last seen; this one's always."""
        return self._alive

    @property
    def is_leader(self) -> bool:
        """Whether new jobs are this controller's."""
        return self._leader == self.id

    def start(self) -> None:
        self._thread.start()
        self._watching.start()

    def stop(self, limit_s: float) -> None:
        """End the lease, so that others take the jobs over at once; waits at most `limit_s`."""
        self._stopping.set()
        self._is_to_look.set()
        threading.Thread(target=self._watching.stop, name="presence-end", daemon=True).start()
        if self._thread.ident is not None:
            self._thread.join(limit_s)

    def _run(self) -> None:
        next_renewal_s = 0.0
        while not self._stopping.is_set():
            self._is_to_look.clear()
            if time.monotonic() >= next_renewal_s:
                next_renewal_s = time.monotonic() + self._beat(is_renewing=True)
            else:
                self._beat(is_renewing=False)
            self._is_to_look.wait(max(0.0, next_renewal_s - time.monotonic()))
            self._stopping.wait(_LOOK_PAUSE_S)  # changes that come together are one look
        if self._lease_id:
            try:
                self._store.revoke_lease(self._lease_id)
            except LochnessError:
                return  # it ends by itself

    def _beat(self, *, is_renewing: bool) -> float:
        """A look, and a renewal first; answers when the next renewal is due, in seconds."""
        try:
            if is_renewing:
                self._renew()
            self._look()
        except LochnessError as error:
            self.has_store.clear()
            if not self._is_lost_told:
                self._is_lost_told = True
                _log.warning(events.STORE_LOST, error=error.message, reason=error.reason)
            return _RETRY_S
        if self._is_lost_told:
            self._is_lost_told = False
            _log.info(events.STORE_RECOVERED)
        self.has_store.set()
        return self._ttl_s / 3

    def _renew(self) -> None:
        if self._lease_id:
            try:
                self._store.keep_alive(self._lease_id)
                return
            except LeaseNotFoundError:
                self._lease_id = 0
        lease_id = self._store.grant_lease(self._ttl_s)
        value = msgspec.json.encode(own_record(self.id, rfc3339(self._clock.now())))
        self._store.commit((), (Put(keys.controller(self.id), value, lease_id),))
        self._lease_id = lease_id
        _log.info(events.CONTROLLER_LEASE_GRANTED, controller=self.id, ttl_s=self._ttl_s)

    def _look(self) -> None:
        items = self._store.read(Prefix(keys.CONTROLLER_PATH)).ranges[0]
        dead = {keys.last_part(item.key) for item in items if self._remove_if_dead(item)}
        by_age = sorted(items, key=lambda item: item.create_revision)
        living = [id for id in (keys.last_part(item.key) for item in by_age) if id not in dead]
        alive = frozenset({*living, self.id})
        leader = living[0] if living else ""
        if leader != self._leader:
            _log.info(events.LEADER_CHANGED, leader=leader, is_self=leader == self.id)
        if (alive, leader) != (self._alive, self._leader) or not self.has_store.is_set():
            self._alive, self._leader = alive, leader
            self._on_change()

    def _remove_if_dead(self, item: KeyValue) -> bool:
        try:
            record = msgspec.json.decode(item.value, type=ControllerRecord)
        except msgspec.DecodeError:
            return False  # another version's: its lease says when it is dead
        if record.id == self.id or not is_known_dead(record):
            return False
        _log.info(events.CONTROLLER_DEAD_FOUND, controller=record.id, pid=record.pid)
        with suppress(ConflictError):  # its lease has just ended
            self._store.commit((KeyUnchanged(item.key, item.mod_revision),), (Delete(item.key),))
        return True


def _boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process began, "" when there is none: the 22nd field of its stat, counted behind the name's bracket."""
    fields = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
