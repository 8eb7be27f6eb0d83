"""How do a daemon's requests become libvirt calls? One driver for every libvirt hypervisor, QEMU and test alike.

Invariants:
1. What is already so is no error: the domain's state decides, before the call and again after it failed (another
   process may have been faster). Error codes do not decide: the drivers differ in them.
2. A domain is changed only after its metadata has said that it is ours.
3. Removing a domain removes everything libvirt keeps about it, never a disk's file.

Not guaranteed: that domains() is one instant: libvirt is asked domain by domain; one that vanishes meanwhile is left
out.
"""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

import libvirt

from lochness.errors import ConflictError, UnavailableError
from lochness.identity import GuestID
from lochness_node.driver.deadline_calls import StillWanted
from lochness_node.driver.domain_xml import MACHINE, OWNER, DomainDescription, domain_xml, parse_domain
from lochness_node.driver.held_snapshots import drop_snapshot, read_snapshots, take_snapshot
from lochness_node.driver.libvirt_connection import LibvirtConnection, Session
from lochness_node.driver.protocol import (
    FOREIGN_DOMAIN,
    SNAPSHOT_LIMIT_S,
    START_LIMIT_S,
    ConnectionCallback,
    CpuMetrics,
    DiskMetrics,
    Domain,
    DomainSpec,
    DomainState,
    EventCallback,
    FilePart,
    FileWindow,
    HeldSnapshot,
    HostFacts,
    Metrics,
    NicMetrics,
)
from lochness_node.driver.stored_files import read_stored

DEFAULT_URI: Final = "qemu:///system"
DEFAULT_CALL_TIMEOUT_S: Final = 10.0

_STATES: Final[dict[int, DomainState]] = {
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.STOPPING,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.SLEEPING,
}

#: libvirt's words for how a domain came to its state, in the order of virDomain*Reason.
_REASONS: Final[dict[int, tuple[str, ...]]] = {
    libvirt.VIR_DOMAIN_RUNNING: (
        "unknown", "booted", "migrated", "restored", "from_snapshot", "unpaused", "migration_canceled",
        "save_canceled", "wakeup", "crashed", "postcopy", "postcopy_failed",
    ),
    libvirt.VIR_DOMAIN_PAUSED: (
        "unknown", "user", "migration", "save", "dump", "ioerror", "watchdog", "from_snapshot", "shutting_down",
        "snapshot", "crashed", "starting_up", "postcopy", "postcopy_failed",
    ),
    libvirt.VIR_DOMAIN_SHUTDOWN: ("unknown", "user"),
    libvirt.VIR_DOMAIN_SHUTOFF: (
        "unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from_snapshot", "daemon",
    ),
    libvirt.VIR_DOMAIN_CRASHED: ("unknown", "panicked"),
}  # fmt: skip


class LibvirtDriver:
    """The hypervisor at `uri`. Implements `lochness_node.driver.protocol.Driver`; see there.

    Connects when first used. `call_timeout_s` bounds each call, the time to connect included. `read_only`: only what
    looks will work, over the socket that everybody may use.
    """

    def __init__(
        self, uri: str = DEFAULT_URI, *, call_timeout_s: float = DEFAULT_CALL_TIMEOUT_S, read_only: bool = False
    ) -> None:
        self._connection = LibvirtConnection(uri, call_timeout_s=call_timeout_s, read_only=read_only)
        self._call_timeout_s = call_timeout_s
        self._reading = threading.Lock()

    def host(self) -> HostFacts:
        return self._connection.call("host facts", lambda session, _: _host(session))

    def domains(self) -> tuple[Domain, ...]:
        def listed(session: Session, still_wanted: StillWanted) -> tuple[Domain, ...]:
            found: list[Domain] = []
            for handle in session.handle.listAllDomains(0):
                still_wanted()
                try:
                    found.append(_domain(handle))
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                        raise
            return tuple(sorted(found, key=lambda domain: domain.uuid))

        return self._connection.call("list domains", listed)

    def domain(self, guest_id: GuestID) -> Domain:
        return self._connection.call(
            f"look up {guest_id}",
            lambda session, _: _domain(session.handle.lookupByUUIDString(guest_id)),
            guest_id=guest_id,
        )

    def define(self, spec: DomainSpec) -> None:
        xml = domain_xml(spec)

        def perform(session: Session, still_wanted: StillWanted) -> None:
            for taken in _domains_in_the_way(session, spec.guest_id):
                _refuse_foreign(taken, spec.guest_id)
            still_wanted()
            session.handle.defineXML(xml)

        what = f"define {spec.guest_id}"
        self._connection.call(what, perform, guest_id=spec.guest_id, timeout_s=START_LIMIT_S)

    def start(self, guest_id: GuestID, *, timeout_s: float | None = None) -> None:
        self._reach("start", guest_id, _is_active, lambda domain: domain.create(), timeout_s)

    def shutdown(self, guest_id: GuestID) -> None:
        self._reach("shut down", guest_id, _is_inactive, _press_power_button)

    def reboot(self, guest_id: GuestID) -> None:
        self._reach("reboot", guest_id, _never, lambda domain: domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN))

    def reset(self, guest_id: GuestID) -> None:
        self._reach("reset", guest_id, _never, lambda domain: domain.reset(0))

    def destroy(self, guest_id: GuestID) -> None:
        self._reach("destroy", guest_id, _is_inactive, lambda domain: domain.destroy())

    def suspend(self, guest_id: GuestID) -> None:
        self._reach("suspend", guest_id, _is_paused, lambda domain: domain.suspend())

    def resume(self, guest_id: GuestID) -> None:
        self._reach("resume", guest_id, _is_running, lambda domain: domain.resume())

    def undefine(self, guest_id: GuestID) -> None:
        def perform(session: Session, still_wanted: StillWanted) -> None:
            domain = session.handle.lookupByUUIDString(guest_id)
            _refuse_foreign(domain, guest_id)
            still_wanted()
            is_persistent = bool(domain.isPersistent())
            _until(_is_inactive, domain, lambda domain: domain.destroy())
            still_wanted()
            if is_persistent:
                domain.undefineFlags(_undefine_flags(session))

        self._connection.call(f"undefine {guest_id}", perform, guest_id=guest_id)

    def metrics(self, guest_id: GuestID) -> Metrics:
        return self._connection.call(
            f"read metrics of {guest_id}",
            lambda session, _: _metrics(session.handle.lookupByUUIDString(guest_id)),
            guest_id=guest_id,
        )

    def snapshots(self, guest_id: GuestID, paths: Sequence[str]) -> Mapping[str, Sequence[HeldSnapshot]]:
        return self._connection.call(
            f"read snapshots of {guest_id}",
            lambda session, _: read_snapshots(session.handle.lookupByUUIDString(guest_id), paths),
            guest_id=guest_id,
        )

    def take_snapshot(self, guest_id: GuestID, paths: Sequence[str], name: str) -> None:
        self._change_held(f"take snapshot of {guest_id}", guest_id, lambda domain: take_snapshot(domain, paths, name))

    def drop_snapshot(self, guest_id: GuestID, paths: Sequence[str], name: str) -> None:
        self._change_held(f"drop snapshot of {guest_id}", guest_id, lambda domain: drop_snapshot(domain, paths, name))

    def read_file(self, guest_id: GuestID, path: str, window: FileWindow) -> FilePart:
        pool = f"{OWNER}-reading-{guest_id}"
        # libvirt takes one pool of a directory; and who reads does not take the places of those who change.
        if not self._reading.acquire(timeout=self._call_timeout_s):
            raise UnavailableError(f"cannot read {path}: others have been reading for {self._call_timeout_s:g} s")
        try:
            return self._connection.call(
                f"read {path}",
                lambda session, _: read_stored(session.handle, PurePath(path), pool, window),
                guest_id=guest_id,
            )
        finally:
            self._reading.release()

    def firmwares(self) -> frozenset[str]:
        return self._connection.call("read firmwares", lambda session, _: _firmwares(session))

    def on_event(self, callback: EventCallback) -> None:
        self._connection.on_event(callback)

    def on_connection(self, callback: ConnectionCallback) -> None:
        self._connection.on_connection(callback)

    def close(self) -> None:
        self._connection.close()

    def _change_held(self, what: str, guest_id: GuestID, change: Callable[[Any], None]) -> None:
        """Change disks that our running domain holds."""

        def perform(session: Session, still_wanted: StillWanted) -> None:
            domain = session.handle.lookupByUUIDString(guest_id)
            _refuse_foreign(domain, guest_id)
            still_wanted()
            change(domain)

        self._connection.call(what, perform, guest_id=guest_id, timeout_s=SNAPSHOT_LIMIT_S)

    def _reach(
        self,
        verb: str,
        guest_id: GuestID,
        reached: Callable[[Any], bool],
        change: Callable[[Any], object],
        timeout_s: float | None = None,
    ) -> None:
        """Make `change` to our domain unless what it is for is `reached` already."""

        def perform(session: Session, still_wanted: StillWanted) -> None:
            domain = session.handle.lookupByUUIDString(guest_id)
            _refuse_foreign(domain, guest_id)
            still_wanted()
            _until(reached, domain, change)

        self._connection.call(f"{verb} {guest_id}", perform, guest_id=guest_id, timeout_s=timeout_s)


def _until(reached: Callable[[Any], bool], domain: Any, change: Callable[[Any], object]) -> None:
    if reached(domain):
        return
    try:
        change(domain)
    except libvirt.libvirtError:
        if not reached(domain):
            raise


def _state(domain: Any) -> DomainState:
    return _STATES.get(domain.state()[0], DomainState.UNKNOWN)


def _is_active(domain: Any) -> bool:
    return bool(domain.isActive())


def _is_inactive(domain: Any) -> bool:
    """Also when it is gone: a transient domain ends with its process."""
    try:
        return not domain.isActive()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return True


def _is_paused(domain: Any) -> bool:
    return _state(domain) is DomainState.PAUSED


def _is_running(domain: Any) -> bool:
    return _state(domain) is DomainState.RUNNING


def _never(_domain: Any) -> bool:
    return False


def _press_power_button(domain: Any) -> None:
    if domain.connect().getType().lower() == "test":  # knows no flags
        domain.shutdown()
    else:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def _undefine_flags(session: Session) -> int:
    flags: int = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    if session.hypervisor != "test":  # refuses flags of what it does not have
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    return flags


def _domains_in_the_way(session: Session, guest_id: GuestID) -> list[Any]:
    found: list[Any] = []
    for look_up in (session.handle.lookupByUUIDString, session.handle.lookupByName):
        try:
            found.append(look_up(guest_id))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


def _refuse_foreign(domain: Any, guest_id: GuestID) -> None:
    ownership = parse_domain(domain.XMLDesc(0)).ownership
    if ownership is None or ownership.guest_id != guest_id:
        raise ConflictError(f"the domain {domain.name()!r} ({domain.UUIDString()}) is not ours", reason=FOREIGN_DOMAIN)


def _domain(handle: Any) -> Domain:
    state, reason = handle.state()
    told = parse_domain(handle.XMLDesc(0))
    words = _REASONS.get(state, ("unknown",))
    return Domain(
        uuid=told.uuid,
        name=told.name,
        title=told.title,
        state=_STATES.get(state, DomainState.UNKNOWN),
        reason=words[reason] if 0 <= reason < len(words) else "unknown",
        memory_mb=told.memory_mb,
        vcpus=told.vcpus,
        ownership=told.ownership,
    )


def _host(session: Session) -> HostFacts:
    _model, memory_mb, cpus, *_rest = session.handle.getInfo()
    capabilities = ET.fromstring(session.handle.getCapabilities())
    arch = capabilities.findtext("host/cpu/arch", "")
    guests = [each for each in capabilities.iterfind("guest/arch") if each.get("name") == arch]
    return HostFacts(
        hypervisor=session.hypervisor,
        hostname=session.handle.getHostname(),
        arch=arch,
        memory_mb=memory_mb,
        cpus=cpus,
        domain_types=frozenset(kind.get("type", "") for each in guests for kind in each.iterfind("domain")),
        machines=frozenset(machine.text or "" for each in guests for machine in each.iter("machine")),
        libvirt_version=session.handle.getLibVersion(),
    )


def _firmwares(session: Session) -> frozenset[str]:
    if session.hypervisor == "test":  # has no such question
        return frozenset()
    told = ET.fromstring(session.handle.getDomainCapabilities(None, "x86_64", MACHINE, None, 0))
    return frozenset(value.text or "" for value in told.iterfind("os/enum[@name='firmware']/value"))


def _metrics(domain: Any) -> Metrics:
    told = parse_domain(domain.XMLDesc(0))
    if not domain.isActive():
        return _ended_metrics(told)
    vcpus, _pinning = domain.vcpus()
    return Metrics(
        # Not getCPUStats: it needs the cpuacct cgroup, which a host may not give to libvirt.
        cpu=CpuMetrics(cpu_time_ns=domain.info()[4], vcpu_time_ns=sum(vcpu[2] for vcpu in vcpus)),
        disks=tuple(_disk_metrics(domain, disk) for disk in told.disks),
        nics=tuple(
            NicMetrics(f"net{index}", *domain.interfaceStats(interface))
            for index, interface in enumerate(told.interfaces)
            if interface
        ),
    )


def _disk_metrics(domain: Any, disk: str) -> DiskMetrics:
    try:
        told = domain.blockStatsFlags(disk)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        read_ops, read_bytes, write_ops, write_bytes, _errors = domain.blockStats(disk)  # the test driver's
        return DiskMetrics(disk, read_ops, read_bytes, 0, write_ops, write_bytes, 0, 0, 0)
    return DiskMetrics(
        disk=disk,
        read_ops=told.get("rd_operations", 0),
        read_bytes=told.get("rd_bytes", 0),
        read_time_ns=told.get("rd_total_times", 0),
        write_ops=told.get("wr_operations", 0),
        write_bytes=told.get("wr_bytes", 0),
        write_time_ns=told.get("wr_total_times", 0),
        flush_ops=told.get("flush_operations", 0),
        flush_time_ns=told.get("flush_total_times", 0),
    )


def _ended_metrics(told: DomainDescription) -> Metrics:
    return Metrics(
        cpu=CpuMetrics(0, 0),
        disks=tuple(DiskMetrics(disk, 0, 0, 0, 0, 0, 0, 0, 0) for disk in told.disks),
        nics=tuple(NicMetrics(f"net{index}", 0, 0, 0, 0, 0, 0, 0, 0) for index in range(len(told.interfaces))),
    )
