"""What is a running controller made of, and in which order does it begin and end?

Invariants:
1. It listens from the start, whether the store is there or not; READY is told once both are true.
2. After `ask_stop` no new work begins, requests in flight get `GRACE_S`, and `run` returns within a second. Jobs in
   progress stay in the store as they are, for the next controller.
3. A watchdog sign is given only while the dispatcher looks at the jobs.

Not guaranteed: that every thread has ended when `run` returns: one that waits for a store or an agent that does not
answer ends by itself at that call's limit, and changes nothing any more but what it had begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import uvicorn
import uvloop

from lochness import events
from lochness.agent_targets import AgentDefaults
from lochness.candidate_plugins import load_candidate_functions
from lochness.clock import Clock, SystemClock
from lochness.context import Context
from lochness.errors import ConfigurationError
from lochness.listen import Address, check_listen, open_listener
from lochness.log import configure_logging, get_logger
from lochness.server_tls import Certificates
from lochness.store.protocol import Store
from lochness.systemd_notify import SystemdNotifier
from lochness_controller.api.app import Parts, build_app
from lochness_controller.api.changes import Changes
from lochness_controller.api.consoles import Consoles
from lochness_controller.api.door import KnownTokens
from lochness_controller.api.jobs import JobNews
from lochness_controller.api.mirror import Mirror
from lochness_controller.api.placement import Policy
from lochness_controller.api.room import Room
from lochness_controller.connection import Connection
from lochness_controller.liveness.shell import Liveness
from lochness_controller.presence import Presence
from lochness_controller.scheduler.shell import Scheduler
from lochness_controller.settings import ControllerSettings, take_over
from lochness_controller.workers.dispatcher import Dispatcher
from lochness_controller.workers.view import JobsView

#: What requests in flight get at the end.
GRACE_S: Final = 0.4
_END_LIMIT_S: Final = 0.2

#: A dispatcher that has not looked for so long is stuck: a look takes a few store calls at most.
_STUCK_S: Final = 60.0
_SUPERVISE_S: Final = 0.2
_CONNECTIONS_MAX: Final = 2000
_KEEP_ALIVE_S: Final = 60

_log = get_logger("controller")


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: the signals are the process's, see main.py."""

    def __init__(self, config: uvicorn.Config, on_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_shutdown = on_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_shutdown()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Controller:
    """One controller on `store`. The sockets are open from here on: `addresses` says where.

    `on_filled` is called once, when all that is kept of the store was read. Raises ConfigurationError for an address
    that can not be listened on.
    """

    def __init__(
        self,
        settings: ControllerSettings,
        store: Store,
        *,
        reread: Callable[[], ControllerSettings] | None = None,
        clock: Clock | None = None,
        notifier: SystemdNotifier | None = None,
        on_filled: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._reread = reread or (lambda: settings)
        self._on_filled = on_filled
        self._is_reload_asked = False
        self._told_status = ""
        self._notifier = notifier or SystemdNotifier()
        clock = clock or SystemClock()
        self._sockets: list[socket.socket] = []
        self.addresses: list[Address] = []
        self._open_sockets()
        context = Context(store)
        view, news = JobsView(), JobNews()
        view.on_change(news.tell)
        self.presence = Presence(store, clock, ttl_s=settings.lease_ttl_s, on_change=self._wake)
        worker = self.presence.id
        functions = load_candidate_functions(settings.candidate_functions)
        scheduler = Scheduler(
            store,
            view,
            clock,
            worker=worker,
            workers_alive=self._workers_alive,
            functions=functions,
            domain=settings.failure_domain,
        )
        self._jobs, self._live = view, scheduler.live
        policy = Policy(functions, settings.failure_domain, scheduler.live.snapshot)
        self._dispatcher = Dispatcher(
            store,
            view,
            scheduler,
            settings,
            clock,
            worker=worker,
            workers_alive=self._workers_alive,
            is_leader=self._is_leader,
        )
        self._liveness = Liveness(store, clock, is_leader=self._is_leader)
        self._changes = Changes()
        self._mirror = Mirror(store)
        self._mirror.follow(self._changes.take, self._changes.begin_anew)
        self._consoles = Consoles(
            store,
            AgentDefaults(settings.agent_port, settings.agent_access.scheme),
            timeout_s=settings.agent_timeout_s,
            access=settings.agent_access,
        )
        tokens = KnownTokens(store)
        self._mirror.follow(tokens.take, tokens.forget)
        app = build_app(
            Parts(
                context,
                clock,
                news,
                self._mirror,
                self._changes,
                tokens,
                Room(view, jobs_max=settings.jobs_unfinished_max),
                policy,
                self._consoles,
                id=self.presence.id,
                controllers_alive=self._workers_alive,
                is_token_required=settings.require_tokens,
                requests_max=settings.requests_max,
            )
        )
        tls = settings.tls.context()
        self._certificates = Certificates(settings.tls, tls) if tls else None
        self._is_certificate_bad = False
        self._server = _Server(self._uvicorn_config(app, tls), self._changes.close)

    def run(self) -> None:
        """Serve until `ask_stop`. Call it once."""
        loop = uvloop.new_event_loop()
        threads = ThreadPoolExecutor(self._settings.api_threads, thread_name_prefix="api")
        loop.set_default_executor(threads)
        try:
            loop.run_until_complete(self._serve())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            loop.close()

    def ask_stop(self) -> None:
        """End soon. May be called from any thread, and from a signal handler."""
        self._server.should_exit = True

    def ask_reload(self) -> None:
        """Read the settings anew, soon. May be called from any thread, and from a signal handler."""
        self._is_reload_asked = True

    async def _serve(self) -> None:
        _log.info(events.DAEMON_STARTED, controller=self.presence.id)
        self.presence.start()
        self._dispatcher.start()
        self._liveness.start()
        self._mirror.start()
        serving = asyncio.create_task(self._server.serve(sockets=self._sockets))
        supervising = asyncio.create_task(self._supervise())
        await serving
        supervising.cancel()
        await self._consoles.close()
        self._notifier.stopping(limit_s=0.1)
        self._stop_parts()
        _log.info(events.DAEMON_STOPPED)

    async def _supervise(self) -> None:
        """Tell systemd when we are ready, and then that we are alive."""
        is_ready, next_sign_s, is_filled = False, 0.0, False
        while True:
            if not is_filled and self._jobs.is_filled and self._live.is_current and self._mirror.is_current:
                is_filled = True
                self._on_filled()
            if self._server.started and not is_ready and self.presence.has_store.is_set():
                is_ready = self._notifier.ready()
                if is_ready:
                    _log.info(events.DAEMON_READY)
            if is_ready and self._is_reload_asked:
                self._is_reload_asked = False
                self._notifier.reloading()
                self._reload()
                self._notifier.ready()
            self._tell_status(is_ready)
            self._renew_certificate()
            watchdog_s = self._notifier.watchdog_s
            if watchdog_s is not None and time.monotonic() >= next_sign_s and not self._is_stuck():
                self._notifier.watchdog()
                next_sign_s = time.monotonic() + watchdog_s / 3
            await asyncio.sleep(_SUPERVISE_S)

    def _reload(self) -> None:
        try:
            new = self._reread()
        except ConfigurationError as error:
            _log.error(events.DAEMON_RELOAD_FAILED, error=error.message, reason=error.reason)
            return
        if fixed := take_over(self._settings, new):
            _log.warning(events.SETTINGS_NEED_RESTART, settings=", ".join(fixed))
        configure_logging(self._settings.log_level, identifier="lochness-controller")
        _log.info(events.DAEMON_RELOADED)

    def _renew_certificate(self) -> None:
        """Show a certificate that was replaced on the disk. One that cannot be used is told once."""
        if self._certificates is None:
            return
        try:
            if self._certificates.renew():
                _log.info(events.CONTROLLER_CERTIFICATE_RENEWED)
            self._is_certificate_bad = False
        except ConfigurationError as error:
            if not self._is_certificate_bad:
                _log.error(events.CONTROLLER_CERTIFICATE_UNUSABLE, error=error.message)
            self._is_certificate_bad = True

    def _tell_status(self, is_ready: bool) -> None:
        """One line for `systemctl status`."""
        role = ("takes up new jobs" if self.presence.is_leader else "standing by") if is_ready else "waiting for etcd"
        status = f"listening on {', '.join(map(str, self.addresses))}; {role}"
        if status != self._told_status and self._notifier.status(status):
            self._told_status = status

    def _is_stuck(self) -> bool:
        return time.monotonic() - self._dispatcher.looked_at_s > _STUCK_S

    def _stop_parts(self) -> None:
        enders = [
            threading.Thread(target=end, args=(_END_LIMIT_S,), daemon=True)
            for end in (self._dispatcher.stop, self._liveness.stop, self.presence.stop, lambda _: self._mirror.stop())
        ]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join(_END_LIMIT_S)

    def _open_sockets(self) -> None:
        try:
            for text in self._settings.listen:
                checked = check_listen(text, insecure=self._settings.insecure, is_protected=self._settings.is_protected)
                listener, address = open_listener(checked)
                self._sockets.append(listener)
                self.addresses.append(address)
                _log.info(events.CONTROLLER_LISTENING, address=str(address))
        except BaseException:
            for listener in self._sockets:
                listener.close()
            raise

    def _uvicorn_config(self, app: object, tls: ssl.SSLContext | None) -> uvicorn.Config:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]  # an ASGI application by the framework's types, not by uvicorn's
            loop="none",
            http=Connection,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        config.load()
        config.ssl = tls
        config.timeout_graceful_shutdown = GRACE_S  # type: ignore[assignment]  # seconds; uvicorn hands it to asyncio
        return config

    def _workers_alive(self) -> frozenset[str]:
        return self.presence.alive

    def _is_leader(self) -> bool:
        return self.presence.is_leader

    def _wake(self) -> None:
        self._dispatcher.workers_changed()
        self._liveness.wake()
