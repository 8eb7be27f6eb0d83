"""How does the agent live: what it opens, when it is ready, what it leaves behind?

    run(settings)                    the agent alone
    run_daemons([..., AgentDaemon])  beside other daemons in one process

1. It listens from its first pass on, and is ready once libvirt and the store have answered and the type of its domains
   is chosen; until then /healthz says what is missing.
2. A pass looks whether all three still answer. Its own event loop it waits for: if that hangs, so does the pass, and
   systemd's watchdog ends the process.
3. On its end guests go on, and running jobs are left to themselves: the next agent calls them interrupted.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from lochness import events, keys
from lochness.clock import Clock, SystemClock
from lochness.errors import LochnessError
from lochness.listen import Address, check_listen, open_listener
from lochness.log import get_logger
from lochness.store.connect import open_store
from lochness.store.protocol import Key, Store
from lochness_node.agent.agent import Agent
from lochness_node.agent.api import build_app
from lochness_node.agent.guests.disks import disk_format
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.records import GuestRecords
from lochness_node.agent.guests.stopping import StopWatch
from lochness_node.agent.http import HttpServer
from lochness_node.agent.images.cache import FetchLimits, ImageCache
from lochness_node.agent.jobs.journal import JobJournal
from lochness_node.agent.jobs.registry import JobRegistry
from lochness_node.agent.settings import AgentSettings
from lochness_node.daemon import run_daemon
from lochness_node.driver.domain_type import choose_domain_type
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import DomainType, Driver
from lochness_node.pass_loop import PassReport, Waker

INTERVAL_S: Final = 10.0
#: Longer than any WatchdogSec in use: a loop that hangs is systemd's to end.
_LOOP_LIMIT_S: Final = 600.0
_HTTP_STOP_LIMIT_S: Final = 0.4


def run(settings: AgentSettings) -> int:
    """Run the agent until SIGTERM; answers the exit code. Call it on the main thread."""
    return run_daemon(AgentDaemon(settings))


class AgentDaemon:
    """The agent as one daemon of the node (lochness_node.pass_loop.Daemon)."""

    name: Final = "agent"
    interval_s: Final = INTERVAL_S

    def __init__(self, settings: AgentSettings) -> None:
        self.waker: Final = Waker()
        self._settings = settings
        self._log = get_logger(self.name)
        self._clock: Clock = SystemClock()
        self._running: _Running | None = None
        self._wrong = "starting"

    def run_pass(self) -> PassReport:
        try:
            if self._running is None:
                self._running = self._started()
            self._running.check()
        except LochnessError as error:
            self._wrong = error.message
            raise
        self._wrong = ""
        return PassReport(f"listening on {self._running.address}")

    def reload(self) -> None:
        self._log.warning(events.SETTINGS_NEED_RESTART)

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()

    def _started(self) -> _Running:
        settings = self._settings
        journal = JobJournal(Path(settings.state_dir, "jobs"))
        jobs = JobRegistry(
            journal, self._clock, self._log,
            running_max=settings.jobs_running, queued_max=settings.jobs_queued_max, kept_max=settings.jobs_kept,
        )  # fmt: skip
        records = GuestRecords(Path(settings.guest_dir))
        limits = FetchLimits(
            [Path(directory) for directory in settings.image_source_dirs],
            settings.image_bytes_max,
            settings.image_fetch_timeout_s,
        )
        images = ImageCache(Path(settings.image_dir), self._clock, limits, records.on_image)
        records.prepare()
        images.prepare()
        jobs.load()
        listener, address = open_listener(check_listen(settings.listen, insecure=settings.insecure))
        store = open_store(
            settings.etcd, ca=settings.etcd_ca, cert=settings.etcd_cert, key=settings.etcd_key,
            timeout_s=settings.etcd_timeout_s,
        )  # fmt: skip
        driver = LibvirtDriver(settings.libvirt)
        host = self._host(store, driver, records, images)
        server = HttpServer(build_app(Agent(host, jobs, lambda: self._wrong)), listener)
        server.start()
        self._log.info(events.AGENT_LISTENING, address=str(address), port=address.port)
        return _Running(host, jobs, server, address)

    def _host(self, store: Store, driver: Driver, records: GuestRecords, images: ImageCache) -> Host:
        @functools.cache  # an error is not remembered: the next call tries again
        def domain_type() -> DomainType:
            choice = choose_domain_type(self._settings.domain_type, driver.host())
            self._log.info(events.LIBVIRT_DOMAIN_TYPE_CHOSEN, domain_type=choice.domain_type, why=choice.reason)
            return choice.domain_type

        return Host(
            hypervisor_id=self._settings.id,
            store=store,
            driver=driver,
            records=records,
            images=images,
            stops=StopWatch(driver, self._clock),
            domain_type=domain_type,
            disk_format=lambda: disk_format(domain_type()),
            lock_dir=Path(self._settings.lock_dir),
            lock_timeout_s=self._settings.lock_timeout_s,
            shutdown_timeout_s=self._settings.shutdown_timeout_s,
        )


class _Running:
    """What a started agent has open."""

    def __init__(self, host: Host, jobs: JobRegistry, server: HttpServer, address: Address) -> None:
        self.address = address
        self._host = host
        self._jobs = jobs
        self._server = server

    def check(self) -> None:
        """Raise what does not answer."""
        self._server.check(_LOOP_LIMIT_S)
        self._host.driver.host()
        self._host.disk_format()
        self._host.store.read(Key(keys.hypervisor(self._host.hypervisor_id)))

    def stop(self) -> None:
        """Who waits for a job gets its state of now; then the connections end."""
        self._jobs.close()
        self._server.stop(_HTTP_STOP_LIMIT_S)
        self._host.driver.close()
        self._host.store.close()
