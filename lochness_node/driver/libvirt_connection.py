"""How does a daemon keep one usable connection to a libvirt that restarts, hangs and comes back?

Invariants:
1. Nothing here waits on libvirt without a limit: every call runs under `DeadlineCalls`, opening included.
2. A connection that missed a deadline or broke is retired: no new call uses it, and it is closed when its last call has
   come back (libvirt frees a connection under the feet of a call that still uses it).
3. Lifecycle events are registered on every connection that is opened; a reopened one is announced with RECOVERED and
   RESYNC.
4. After a failed open the next attempt waits, `FIRST_BACKOFF_S` at first and at most `MAX_BACKOFF_S`; calls until then
   fail at once.
5. libvirt prints nothing: its errors become ours, `raise ... from`.

Not guaranteed: that a loss is noticed before the next call when libvirtd freezes; keepalive needs up to 20 s for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import libvirt

from lochness import events
from lochness.errors import DeadlineError, DriverError, LochnessError, NotFoundError, UnavailableError
from lochness.identity import GuestID
from lochness.log import get_logger
from lochness_node.driver.deadline_calls import DeadlineCalls, StillWanted
from lochness_node.driver.protocol import ConnectionCallback, ConnectionState, EventCallback, EventKind

Answer = TypeVar("Answer")

KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_COUNT: Final = 3
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 2.0
MAX_CALLS: Final = 8
_EVENT_LOOP_PAUSE_S: Final = 1.0

_EVENT_KINDS: Final[dict[int, EventKind]] = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: EventKind.DEFINED,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: EventKind.UNDEFINED,
    libvirt.VIR_DOMAIN_EVENT_STARTED: EventKind.STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: EventKind.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: EventKind.RESUMED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: EventKind.STOPPED,
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: EventKind.SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: EventKind.SLEEPING,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: EventKind.CRASHED,
}

_event_loop_lock: Final = threading.Lock()
_event_loop: threading.Thread | None = None


def _ensure_event_loop() -> None:
    """Start libvirt's event loop, once per process. It must exist before the first connection is opened."""
    global _event_loop
    with _event_loop_lock:
        if _event_loop is not None:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        _event_loop = threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True)
        _event_loop.start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            time.sleep(_EVENT_LOOP_PAUSE_S)  # poll(2) itself failed: never spin


def translated(error: Any, what: str, *, guest_id: str = "", alive: bool = True) -> LochnessError:
    """Our error for libvirt's. Codes are trusted only where QEMU and the test driver agree on them."""
    code, text = error.get_error_code(), str(error.get_error_message() or error)
    if not alive:
        return UnavailableError(f"{what}: the connection to libvirt broke: {text}", libvirt_code=code)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFoundError("guest", guest_id)
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:  # "cannot acquire state change lock"
        return DeadlineError(f"{what}: libvirt gave up: {text}", libvirt_code=code)
    return DriverError(f"{what}: {text}", libvirt_code=code)


class Session:
    """One open connection. `hypervisor` is its type in lower case."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.hypervisor: Final = str(handle.getType()).lower()
        self.event_id: int | None = None
        self.has_close_callback = False
        self.lock = threading.Lock()
        self.users = 0
        self.retired = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the connection from being closed meanwhile. Raises UnavailableError when it is retired already."""
        with self.lock:
            if self.retired:
                raise UnavailableError("the connection to libvirt was given up")
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                last = self.retired and self.users == 0
            if last:
                self.dispose()

    def retire(self) -> bool:
        """No new users from now on; answers whether this was the first to say so. Never blocks."""
        with self.lock:
            if self.retired:
                return False
            self.retired = True
            idle = self.users == 0
        if idle:  # on a thread: this may be libvirt's own event thread, which must not close its connection
            threading.Thread(target=self.dispose, name="libvirt-dispose", daemon=True).start()
        return True

    def dispose(self) -> None:
        """Close it. A connection that is gone refuses some of this, which changes nothing."""
        if self.event_id is not None:
            with suppress(libvirt.libvirtError):
                self.handle.domainEventDeregisterAny(self.event_id)
        if self.has_close_callback:
            with suppress(libvirt.libvirtError):
                self.handle.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            self.handle.close()


class LibvirtConnection:
    """The connection to `uri`, opened when first used. Safe to share between threads.

    `read_only` takes libvirt's read-only socket, which needs no group, and over which nothing can be changed.
    """

    def __init__(self, uri: str, *, call_timeout_s: float, read_only: bool = False) -> None:
        self._uri = uri
        self._open: Final = libvirt.openReadOnly if read_only else libvirt.open
        self._call_timeout_s = call_timeout_s
        self._calls = DeadlineCalls("libvirt", max_calls=MAX_CALLS)
        self._log = get_logger("libvirt")
        self._open_lock = threading.Lock()
        self._lock = threading.Lock()  # guards what follows; never held while calling anything that can wait
        self._session: Session | None = None
        self._lost = False
        self._closed = False
        self._backoff_s = 0.0
        self._next_open_s = 0.0
        self._event_callbacks: tuple[EventCallback, ...] = ()
        self._connection_callbacks: tuple[ConnectionCallback, ...] = ()

    def on_event(self, callback: EventCallback) -> None:
        with self._lock:
            self._event_callbacks += (callback,)

    def on_connection(self, callback: ConnectionCallback) -> None:
        with self._lock:
            self._connection_callbacks += (callback,)

    def call(
        self,
        what: str,
        function: Callable[[Session, StillWanted], Answer],
        *,
        guest_id: str = "",
        timeout_s: float | None = None,
    ) -> Answer:
        """What `function` answers, within `timeout_s` or else the call timeout.

        libvirt's errors are raised as ours, their text begun by `what`.
        """
        limit_s = self._call_timeout_s if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + limit_s
        session = self._connected(what, deadline_s, limit_s)

        def perform(still_wanted: StillWanted) -> Answer:
            with session.used():
                try:
                    return function(session, still_wanted)
                except libvirt.libvirtError as error:
                    alive = bool(session.handle.isAlive())
                    if not alive:
                        self._give_up(session, str(error))
                    raise translated(error, what, guest_id=guest_id, alive=alive) from error

        try:
            return self._calls.run(perform, timeout_s=_left_s(deadline_s), key=guest_id)
        except DeadlineError as error:
            if "libvirt_code" not in error.details:
                self._log.warning(events.LIBVIRT_CALL_TIMED_OUT, call=what, limit_s=limit_s, stuck=self._calls.stuck())
                self._give_up(session, f"{what} was not answered")
                raise _too_late(what, limit_s) from error
            raise

    def close(self) -> None:
        """Retire the connection for good. Its calls on their way may finish; it is closed after the last of them."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
            self._event_callbacks = ()
            self._connection_callbacks = ()
        if session is not None:
            session.retire()

    def _connected(self, what: str, deadline_s: float, limit_s: float) -> Session:
        if not self._open_lock.acquire(timeout=_left_s(deadline_s)):
            raise _too_late(what, limit_s)
        try:
            with self._lock:
                if self._closed:
                    raise UnavailableError(f"{what}: the driver is closed")
                if self._session is not None and not self._session.retired:
                    return self._session
                wait_s = self._next_open_s - time.monotonic()
            if wait_s > 0:
                raise UnavailableError(f"{what}: libvirt at {self._uri} is not reachable, next try in {wait_s:.1f} s")
            return self._opened(what, deadline_s, limit_s)
        finally:
            self._open_lock.release()

    def _opened(self, what: str, deadline_s: float, limit_s: float) -> Session:
        late: list[Session] = []  # what to close when nobody waits for it any more

        def perform(_still_wanted: StillWanted) -> Session:
            _ensure_event_loop()
            session = Session(self._open(self._uri))
            late.append(session)
            self._listen(session)
            return session

        def discard() -> None:
            for each in late:
                each.retire()

        try:
            session = self._calls.run(perform, timeout_s=_left_s(deadline_s), on_late_return=discard)
        except libvirt.libvirtError as error:
            discard()
            self._back_off()
            raise UnavailableError(
                f"{what}: cannot connect to libvirt at {self._uri}: {error}", libvirt_code=error.get_error_code()
            ) from error
        except DeadlineError as error:
            self._back_off()
            raise _too_late(what, limit_s) from error
        except LochnessError:
            self._back_off()
            raise
        with self._lock:
            if self._closed:
                session.retire()
                raise UnavailableError(f"{what}: the driver is closed")
            self._backoff_s = 0.0
            self._session = session
            was_lost, self._lost = self._lost, False
        if was_lost:
            self._log.info(events.LIBVIRT_RECOVERED, uri=self._uri)
            self._announce(ConnectionState.RECOVERED)
            self._tell(None, EventKind.RESYNC)
        return session

    def _back_off(self) -> None:
        with self._lock:
            self._backoff_s = min(max(self._backoff_s * 2, FIRST_BACKOFF_S), MAX_BACKOFF_S)
            self._next_open_s = time.monotonic() + self._backoff_s

    def _listen(self, session: Session) -> None:
        """Register for events, for the loss of the connection, and for keepalive where the driver has one."""

        def on_lifecycle(_handle: Any, domain: Any, event: int, _detail: int, _opaque: Any) -> None:
            if not session.retired:
                self._tell(GuestID(domain.UUIDString()), _EVENT_KINDS.get(event, EventKind.OTHER))

        def on_close(_handle: Any, reason: int, _opaque: Any) -> None:
            self._give_up(session, _CLOSE_REASONS.get(reason, str(reason)))

        handle = session.handle
        session.event_id = handle.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None
        )
        with _tolerating_no_support():
            handle.registerCloseCallback(on_close, None)
            session.has_close_callback = True
        with _tolerating_no_support():
            handle.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)

    def _give_up(self, session: Session, why: str) -> None:
        with self._lock:
            if self._session is session:
                self._session = None
                self._lost = True
            closed = self._closed
        if session.retire() and not closed:
            self._log.warning(events.LIBVIRT_LOST, uri=self._uri, why=why)
            self._announce(ConnectionState.LOST)

    def _tell(self, guest_id: GuestID | None, kind: EventKind) -> None:
        for callback in self._event_callbacks:
            callback(guest_id, kind)

    def _announce(self, state: ConnectionState) -> None:
        for callback in self._connection_callbacks:
            callback(state)


_CLOSE_REASONS: Final = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "error",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "end of file",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "keepalive timed out",
    libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT: "closed by the client",
}


@contextmanager
def _tolerating_no_support() -> Iterator[None]:
    """Pass over a call that this hypervisor driver does not have (the test driver has neither)."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise


def _too_late(what: str, limit_s: float) -> DeadlineError:
    return DeadlineError(f"{what}: libvirt did not answer within {limit_s:g} s", limit_s=limit_s)


def _left_s(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())
