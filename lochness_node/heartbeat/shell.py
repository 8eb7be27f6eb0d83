"""How does the lease stay alive, whatever happens to etcd?

Each beat renews the lease first, then reads the key and does what `decide` says. A beat is two calls as long as all
is well, which is why the settings demand interval + 2 x request timeout <= ttl.

Invariants:
1. Losing etcd never ends the daemon: the loop tries again, says the loss once and the recovery once.
2. A lost lease is replaced within the same beat that learns of it.
3. A lease is held only while there is a key to hold under it; a clean stop revokes it, so that the hypervisor is
   known to be away at once.
4. Ends by itself in one case only: somebody else beats under our ID (exit 78, `decide` rules 2 and 3).

Not guaranteed: that the revocation on a stop arrives. Then the key goes when its ttl is over.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import metadata

from lochness import events, keys
from lochness.clock import Clock, SystemClock
from lochness.errors import (
    AmbiguousWriteError,
    ConfigurationError,
    ConflictError,
    LeaseNotFoundError,
    UnavailableError,
    ValidationError,
)
from lochness.log import get_logger
from lochness.metrics import Figure
from lochness.model.hypervisor import HeartbeatRecord
from lochness.store.protocol import Key, KeyExists, KeyUnchanged, Put, Reading, Store
from lochness_node.daemon import PassReport, Waker
from lochness_node.fencing import this_host, this_machine
from lochness_node.heartbeat.decide import AwaitEnd, Beating, Own, Refuse, Seen, StandBack, WriteKey, decide
from lochness_node.registration import Registration
from lochness_node.settings import HeartbeatSettings, reloaded

#: How often a hypervisor that is not registered, or a key that is another's, is looked at.
WAITING_LOOK_S = 2.0
#: A store that stood still for longer than the ttl ends the lease when it goes on, and until the next beat we count as
#: lost: so it is asked often while it is away. A thousand hosts are a thousand small requests a second.
RETRY_MAX_S = 1.0
#: After another process was faster: soon, but not in a tight circle.
_CONFLICT_LOOK_S = 0.2


class Heartbeat:
    """The daemon, see `lochness_node.pass_loop.Daemon`. `reread` answers the settings as they are now (SIGHUP)."""

    name = "heartbeat"

    def __init__(
        self,
        settings: HeartbeatSettings,
        store: Store,
        *,
        reread: Callable[[], HeartbeatSettings] | None = None,
        clock: Clock | None = None,
        host: str | None = None,
        machine: str | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._reread = reread or (lambda: settings)
        self._clock = clock or SystemClock()
        self._log = get_logger(self.name)
        self.waker = Waker()
        self._key = keys.hypervisor_heartbeat(settings.id)
        self._record_key = keys.hypervisor(settings.id)
        self._host = this_host() if host is None else host
        self._machine = this_machine() if machine is None else machine
        self._versions = versions()
        self._registration = Registration(settings.id, self._log)
        self._lease_id = 0
        self._renewed_s = 0.0
        self._has_written = False
        self._is_failing = False
        self._first_seen: tuple[int, float] = (0, 0.0)  # the key's create_revision, and when we first saw that one
        self._awaited = 0  # the create_revision of another machine's key that was reported

    @property
    def interval_s(self) -> float:
        return self._settings.interval_s

    @property
    def retry_max_s(self) -> float:
        return min(RETRY_MAX_S, self._settings.interval_s)

    def run_pass(self) -> PassReport:
        """One beat."""
        try:
            self._renew()
            report = self._look()
        except (UnavailableError, AmbiguousWriteError) as error:
            self._failed(error)
            raise
        self._recovered()
        return report

    def reload(self) -> None:
        new = reloaded(self._settings, self._reread(), self._log, "request_timeout_s")
        if new.ttl_s != self._settings.ttl_s:
            # A lease keeps the ttl it was granted with. The next beat puts the key under a new one, without a gap; the
            # old one ends by itself.
            self._forget_lease()
        self._settings = new

    def stop(self) -> None:
        """Revoke the lease: gone at once instead of after its ttl."""
        try:
            self._release()
        except (UnavailableError, AmbiguousWriteError) as error:
            self._log.warning(events.HEARTBEAT_RENEW_FAILED, error=str(error), consequence="the lease ends by its ttl")
        self._store.close()

    def _renew(self) -> None:
        if not self._lease_id:
            return
        try:
            self._store.keep_alive(self._lease_id)
            self._renewed_s = self._clock.monotonic_s()
        except LeaseNotFoundError:
            self._log.warning(events.HEARTBEAT_LEASE_LOST, lease_id=self._lease_id, silent_s=self._silent_s())
            self._lease_id, self._has_written = 0, False

    def _look(self) -> PassReport:
        seen = self._seen(self._store.read(Key(self._key), Key(self._record_key)))
        self._registration.saw(is_registered=seen.is_registered)
        action = decide(self._settings.id, Own(self._host, self._machine, self._lease_id, self._has_written), seen)
        match action:
            case Beating():
                self._has_written = True  # also when the write's answer was lost
                return self._beating()
            case WriteKey(expected_revision):
                return self._write(expected_revision)
            case StandBack():
                self._release()
                return PassReport(self._registration.status, look_again_s=WAITING_LOOK_S)
            case AwaitEnd(holder, limit_s):
                self._release()
                if self._awaited != self._first_seen[0]:
                    self._awaited = self._first_seen[0]
                    self._log.warning(
                        events.HEARTBEAT_AWAITS_OTHER, host=holder.host, machine=holder.machine, limit_s=limit_s
                    )
                return PassReport(f"waiting for the lease of {holder.host} to end", look_again_s=WAITING_LOOK_S)
            case Refuse(text):
                self._release()
                raise ConfigurationError(text)

    def _seen(self, reading: Reading) -> Seen:
        found, is_registered = reading.one(0), reading.one(1) is not None
        if found is None:
            return Seen(is_registered)
        now_s = self._clock.monotonic_s()
        if self._first_seen[0] != found.create_revision:
            self._first_seen = (found.create_revision, now_s)
        try:
            holder = HeartbeatRecord.from_json(found.value)
        except ValidationError:
            holder = HeartbeatRecord()  # of nobody: it is overwritten
        return Seen(is_registered, holder, found.lease_id, found.mod_revision, now_s - self._first_seen[1])

    def _write(self, expected_revision: int) -> PassReport:
        lease_id = self._lease_id or self._store.grant_lease(self._settings.ttl_s)
        self._lease_id, self._renewed_s = lease_id, self._clock.monotonic_s()
        put = Put(self._key, self._record().to_json(), lease_id=lease_id)
        try:
            self._store.commit([KeyUnchanged(self._key, expected_revision), KeyExists(self._record_key)], [put])
        except ConflictError:
            return PassReport("the key changed meanwhile, looking again", look_again_s=_CONFLICT_LOOK_S)
        except LeaseNotFoundError:
            self._lease_id = 0
            return PassReport("the lease ended meanwhile, looking again", look_again_s=_CONFLICT_LOOK_S)
        self._has_written = True
        self._log.info(events.HEARTBEAT_LEASE_GRANTED, lease_id=lease_id, ttl_s=self._settings.ttl_s)
        return self._beating()

    def _beating(self) -> PassReport:
        ttl = Figure("heartbeat_lease_ttl_seconds", "The lease's time to live.", self._settings.ttl_s)
        return PassReport(f"beating, lease {self._lease_id:x} of {self._settings.ttl_s} s", figures=(ttl,))

    def _record(self) -> HeartbeatRecord:
        return HeartbeatRecord(
            host=self._host,
            machine=self._machine,
            pid=os.getpid(),
            since=self._clock.now().isoformat(timespec="seconds"),
            ttl_s=self._settings.ttl_s,
            versions=self._versions,
        )

    def _release(self) -> None:
        """Hold no lease. Its key goes with it."""
        if not self._lease_id:
            return
        lease_id = self._lease_id
        self._forget_lease()
        self._store.revoke_lease(lease_id)
        self._log.info(events.HEARTBEAT_LEASE_REVOKED, lease_id=lease_id)

    def _forget_lease(self) -> None:
        self._lease_id, self._has_written = 0, False

    def _silent_s(self) -> float:
        return round(self._clock.monotonic_s() - self._renewed_s, 1)

    def _failed(self, error: UnavailableError | AmbiguousWriteError) -> None:
        if self._is_failing or not self._lease_id:
            return
        self._is_failing = True
        left_s = max(0.0, self._settings.ttl_s - self._silent_s())
        self._log.warning(
            events.HEARTBEAT_RENEW_FAILED, lease_id=self._lease_id, lease_left_s=round(left_s, 1), error=str(error)
        )

    def _recovered(self) -> None:
        if self._is_failing:
            self._is_failing = False
            self._log.info(events.HEARTBEAT_RENEW_RECOVERED, lease_id=self._lease_id)


def versions() -> dict[str, object]:
    """Of Loch Ness, Python and the kernel."""
    try:
        own = metadata.version("lochness")
    except metadata.PackageNotFoundError:
        own = "unknown"
    return {"lochness": own, "python": platform.python_version(), "kernel": platform.release()}
