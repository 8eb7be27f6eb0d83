"""How does hypervisors/ID/resources stay true?

Invariants:
1. A pass reads the bindings and the written record at one revision, and writes only when the sums differ from what is
   written, or when that is older than `refresh_s`.
2. A new or removed binding wakes the loop at once.
3. When libvirt does not answer, the last figure of unbound domains stays in use, from memory or else from the written
   record. Without any, nothing is written: half a sum is worse than an old one.
4. Nothing is written for a hypervisor that is not registered.

Not guaranteed: that `available` is what a placement sees a moment later; placements claim by the bindings themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from lochness import events, keys
from lochness.capacity import Policy, UnboundUse, claims_of, compute, unbound_use_from
from lochness.clock import Clock, SystemClock
from lochness.errors import ConflictError, DeadlineError, DriverError, UnavailableError, ValidationError
from lochness.log import get_logger
from lochness.metrics import Figure
from lochness.model.resources import ResourcesRecord
from lochness.store.protocol import Key, KeyExists, KeyValue, Prefix, Put, Store
from lochness_node.binding_watch import BindingWatch
from lochness_node.daemon import PassReport, Waker
from lochness_node.driver.protocol import Domain, Driver
from lochness_node.driver.seen_domains import SeenDomains
from lochness_node.pass_loop import FRESH_SHARE
from lochness_node.registration import Registration
from lochness_node.resources.facts import Sources, machine_sources
from lochness_node.resources.unbound import unbound_use
from lochness_node.settings import ResourcesSettings, reloaded

#: The hypervisor's config in etcd that says where guests' disks lie.
GUEST_DISK_DIR: Final = "guestDiskDir"
#: How soon to ask again what could not be told: libvirt, or whether the hypervisor is registered.
RETRY_LOOK_S: Final = 2.0


class ResourcesDaemon:
    """The daemon, see `lochness_node.pass_loop.Daemon`. `reread` answers the settings as they are now (SIGHUP)."""

    name = "resources"

    def __init__(
        self,
        settings: ResourcesSettings,
        store: Store,
        driver: Driver,
        *,
        reread: Callable[[], ResourcesSettings] | None = None,
        sources: Sources | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._driver = driver
        self._reread = reread or (lambda: settings)
        self._clock = clock or SystemClock()
        self._log = get_logger(self.name)
        self.waker = Waker()
        seen = SeenDomains(driver, self._clock, self.waker.wake)
        self._sources = sources or machine_sources(lambda: seen.recent(FRESH_SHARE * self._settings.refresh_s))
        self._registration = Registration(settings.id, self._log)
        self._unbound: UnboundUse | None = None
        self._is_stale = False
        self._refused_dir = ""
        self._written_s: float | None = None
        self._watch = BindingWatch(store, settings.id, self.waker, self._log)

    @property
    def interval_s(self) -> float:
        return self._settings.refresh_s

    @property
    def retry_max_s(self) -> float:
        return self.interval_s

    def run_pass(self) -> PassReport:
        self._watch.ensure_started()
        domains = self._domains()
        hypervisor_id = self._settings.id
        reading = self._store.read(
            Key(keys.hypervisor(hypervisor_id)),
            Key(keys.hypervisor_resources(hypervisor_id)),
            Prefix(keys.hypervisor_guests(hypervisor_id)),
            Key(keys.hypervisor_config(hypervisor_id, GUEST_DISK_DIR)),
        )
        self._registration.saw(is_registered=reading.one(0) is not None)
        if reading.one(0) is None:
            return PassReport(self._registration.status, look_again_s=RETRY_LOOK_S)
        host = self._sources.host(self._guest_dir(reading.one(3)))
        claims = claims_of(reading.ranges[2])
        written = _parsed(reading.one(1))
        if domains is not None:
            self._unbound = unbound_use(domains, claims)
        elif self._unbound is None:
            self._unbound = unbound_use_from(written) if written else None
        if self._unbound is None:
            raise UnavailableError("libvirt does not answer, so it is not known what other domains hold")
        record = compute(host, self._unbound, claims, _policy(self._settings))
        report = self._write_if_news(record, written)
        if domains is not None:
            return report
        return PassReport(f"{report.status}; libvirt does not answer", RETRY_LOOK_S, report.figures)

    def reload(self) -> None:
        self._settings = reloaded(self._settings, self._reread(), self._log)

    def stop(self) -> None:
        self._watch.stop()
        self._store.close()
        self._driver.close()

    def _guest_dir(self, found: KeyValue | None) -> Path:
        """The hypervisor's own in etcd, else the configured one. One that is no absolute path is said and not used."""
        given = found.value.decode(errors="replace").strip() if found else ""
        if not given or Path(given).is_absolute():
            self._refused_dir = ""
            return Path(given or self._settings.guest_dir)
        if given != self._refused_dir:
            self._refused_dir = given
            self._log.error(
                events.RESOURCES_CONFIG_REFUSED, key=GUEST_DISK_DIR, value=given, used=self._settings.guest_dir
            )
        return Path(self._settings.guest_dir)

    def _domains(self) -> tuple[Domain, ...] | None:
        """None when libvirt does not answer, which is said once."""
        try:
            domains = self._sources.domains()
        except (UnavailableError, DeadlineError, DriverError) as error:
            if not self._is_stale:
                self._is_stale = True
                self._log.warning(events.RESOURCES_FIGURE_STALE, figure="unbound domains", error=str(error))
            return None
        if self._is_stale:
            self._is_stale = False
            self._log.info(events.RESOURCES_FIGURE_RECOVERED, figure="unbound domains")
        return domains

    def _write_if_news(self, record: ResourcesRecord, written: ResourcesRecord | None) -> PassReport:
        now_s = self._clock.monotonic_s()
        left = record.available
        status = f"{left.memory} MB memory, {left.disk} MB disk, {left.cpu} CPUs available"
        is_fresh = self._written_s is not None and now_s - self._written_s < FRESH_SHARE * self._settings.refresh_s
        if written is not None and is_fresh and written.to_fields() == record.to_fields():
            return PassReport(status, figures=_figures(record))
        key = keys.hypervisor_resources(self._settings.id)
        try:
            self._store.commit([KeyExists(keys.hypervisor(self._settings.id))], [Put(key, record.to_json())])
        except ConflictError:
            return PassReport("the hypervisor was removed meanwhile", look_again_s=RETRY_LOOK_S)
        self._written_s = now_s
        if written is None or _worth_a_line(written) != _worth_a_line(record):
            self._log.info(
                events.RESOURCES_WRITTEN,
                available_memory_mb=left.memory,
                available_disk_mb=left.disk,
                available_cpus=left.cpu,
                guests=record.computed_from["guests"],
            )
        return PassReport(status, figures=_figures(record))


def _figures(record: ResourcesRecord) -> tuple[Figure, ...]:
    return tuple(
        Figure(f"resources_{unit}", f"The {resource} of this hypervisor for guests.", amount, labels=(("of", of),))
        for of, amounts in (("total", record.total), ("available", record.available))
        for resource, unit, amount in (
            ("memory", "memory_bytes", amounts.memory << 20),
            ("disk", "disk_bytes", amounts.disk << 20),
            ("CPUs", "cpus", amounts.cpu),
        )
    )


def _worth_a_line(record: ResourcesRecord) -> tuple[object, ...]:
    """The disk is not in it: it changes with every line that anybody logs."""
    return (record.total.memory, record.total.cpu, record.available.memory, record.available.cpu)


def _parsed(found: KeyValue | None) -> ResourcesRecord | None:
    """The record as written, None when there is none or one that needs to be replaced."""
    try:
        return ResourcesRecord.from_json(found.value) if found else None
    except ValidationError:
        return None


def _policy(settings: ResourcesSettings) -> Policy:
    return Policy(
        reserve_memory_mb=settings.reserve_memory_mb,
        reserve_disk_mb=settings.reserve_disk_mb,
        reserve_cpus=settings.reserve_cpus,
        cpu_overcommit=settings.cpu_overcommit,
        guest_overhead_mb=settings.guest_overhead_mb,
        reserve_memory_percent=settings.reserve_memory_percent,
        reserve_disk_percent=settings.reserve_disk_percent,
        reserve_cpus_percent=settings.reserve_cpus_percent,
    )
