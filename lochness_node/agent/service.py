"""How does the agent live: what it opens, when it is ready, what it leaves behind?

    run(settings)                    the agent alone
    run_daemons([..., AgentDaemon])  beside other daemons in one process

1. It listens from its first pass on, and is ready once libvirt and the store have answered and the type of its domains
   is chosen; until then /healthz says what is missing.
2. A pass looks whether all three still answer. Its own event loop it waits for: if that hangs, so does the pass, and
   systemd's watchdog ends the process.
3. On its end guests go on, and running jobs are left to themselves: the next agent does them anew, from its first good
   pass on.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from lochness import events, keys
from lochness.clock import Clock, SystemClock
from lochness.errors import ConfigurationError, LochnessError
from lochness.listen import Address, check_listen, open_listener
from lochness.log import get_logger
from lochness.server_tls import Certificates
from lochness.store.connect import open_store
from lochness.store.protocol import Key, Store
from lochness_node.agent.agent import Agent, job_worker
from lochness_node.agent.api import build_app
from lochness_node.agent.edge import guarded
from lochness_node.agent.guests.disks import disk_format
from lochness_node.agent.guests.downloads import Downloads
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.host_metadata import HostMetadata
from lochness_node.agent.guests.records import GuestRecords
from lochness_node.agent.guests.stopping import StopWatch
from lochness_node.agent.http import HttpServer
from lochness_node.agent.images.cache import ImageCache
from lochness_node.agent.images.download import FetchLimits
from lochness_node.agent.jobs.journal import JobJournal
from lochness_node.agent.jobs.registry import JobRegistry
from lochness_node.agent.rates import Rates
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
    retry_max_s: Final = INTERVAL_S

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
        if self._running is not None:
            self._running.renew_certificates()
        self._log.warning(events.SETTINGS_NEED_RESTART)

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()

    def _started(self) -> _Running:
        settings = self._settings
        records = GuestRecords(Path(settings.guest_dir))
        limits = FetchLimits(
            [Path(directory) for directory in settings.image_source_dirs],
            settings.image_bytes_max,
            settings.image_fetch_timeout_s,
            settings.image_reserve_bytes,
        )
        images = ImageCache(Path(settings.image_dir), self._clock, limits, records.on_image)
        records.prepare()
        images.prepare()
        journal = JobJournal(Path(settings.state_dir, "jobs"))
        store = open_store(
            settings.etcd, ca=settings.etcd_ca, cert=settings.etcd_cert, key=settings.etcd_key,
            timeout_s=settings.etcd_timeout_s,
        )  # fmt: skip
        driver = LibvirtDriver(settings.libvirt)
        host = self._host(store, driver, records, images)
        jobs = JobRegistry(
            journal, job_worker(host), self._clock, self._log,
            running_max=settings.jobs_running, queued_max=settings.jobs_queued_max, kept_max=settings.jobs_kept,
        )  # fmt: skip
        try:
            jobs.load(resume_age_max_s=settings.jobs_resume_s)
            protection = settings.protection
            tls = protection.files.context()
            listener, address = open_listener(
                check_listen(settings.listen, insecure=settings.insecure, is_protected=protection.is_enough)
            )
        except LochnessError:  # the next pass begins anew
            driver.close()
            store.close()
            raise
        app = build_app(Agent(host, jobs, lambda: self._wrong))
        rates = Rates(settings.requests_per_s, settings.requests_burst)
        server = HttpServer(guarded(app, protection, rates, self._clock), listener, tls)
        server.start()
        self._log.info(events.AGENT_LISTENING, address=str(address), port=address.port, is_tls=tls is not None)
        return _Running(host, jobs, server, address, Certificates(protection.files, tls) if tls else None)

    def _host(self, store: Store, driver: Driver, records: GuestRecords, images: ImageCache) -> Host:
        @functools.cache  # an error is not remembered: the next call tries again
        def domain_type() -> DomainType:
            choice = choose_domain_type(
                self._settings.domain_type, driver.host(), Path(self._settings.state_dir, "kvm-self-test.json")
            )
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
            downloads=Downloads(),
            metadata=HostMetadata(Path(self._settings.state_dir, "metadata.json")),
            clock=self._clock,
            lock_dir=Path(self._settings.lock_dir),
            lock_timeout_s=self._settings.lock_timeout_s,
            shutdown_timeout_s=self._settings.shutdown_timeout_s,
        )


class _Running:
    """What a started agent has open."""

    def __init__(
        self,
        host: Host,
        jobs: JobRegistry,
        server: HttpServer,
        address: Address,
        certificates: Certificates | None,
    ) -> None:
        self.address = address
        self._certificates = certificates
        self._certificates_wrong = ""
        self._log = get_logger("agent")
        self._host = host
        self._jobs = jobs
        self._server = server

    def check(self) -> None:
        """Raise what does not answer."""
        self.renew_certificates()
        self._server.check(_LOOP_LIMIT_S)
        self._host.driver.host()
        self._host.disk_format()
        self._host.store.read(Key(keys.hypervisor(self._host.hypervisor_id)))
        self._jobs.release()

    def renew_certificates(self) -> None:
        """A new certificate that cannot be used is a person's to mend; the old one goes on meanwhile."""
        wrong = ""
        try:
            if self._certificates is not None and self._certificates.renew():
                self._log.info(events.AGENT_CERTIFICATE_RENEWED)
        except ConfigurationError as error:
            wrong = error.message
        if wrong and not self._certificates_wrong:
            self._log.error(events.AGENT_CERTIFICATE_UNUSABLE, error=wrong)
        self._certificates_wrong = wrong

    def stop(self) -> None:
        """Who waits for a job gets its state of now; then the connections end."""
        self._jobs.close()
        self._server.stop(_HTTP_STOP_LIMIT_S)
        self._host.driver.close()
        self._host.store.close()
