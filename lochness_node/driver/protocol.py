"""What does a daemon ask of the hypervisor, and what may it rely on?

Invariants every implementation keeps (tests/contract/driver runs them on libvirt's test driver and on QEMU):
1. A guest's domain has the guest id as its UUID and as its name, and carries an `Ownership` in its metadata.
2. A domain without our ownership is listed (`ownership is None`) and never changed: a call that would raises
   `ConflictError` with the reason "foreign_domain".
3. Every call ends within the driver's call timeout: with its answer, or with one of the errors below.
4. `start`, `shutdown`, `destroy`, `suspend` and `resume` are idempotent: a domain that is already there is no error.
5. A call whose caller has met its deadline begins no change afterwards; one that libvirt already has may still happen.
6. Callbacks run on a thread of the driver or of a caller. They must return at once (wake something), never raise, and
   never call the driver.

Errors of every call: NotFoundError("guest", id) when there is no such domain; UnavailableError when libvirt was not
reached, the connection broke under the call, or too many calls hang; DeadlineError when it did not answer in time;
DriverError with libvirt's text and `details["libvirt_code"]` for everything else. After DeadlineError, and after a
connection that broke, look again before believing that nothing changed.

Not guaranteed: that every event arrives (a lost connection loses some; `EventKind.RESYNC` says so), that an event's
domain is ours, or that a guest obeys an ACPI request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from lochness.identity import GuestID

DomainType = Literal["kvm", "qemu", "test"]
#: The reason of the ConflictError that guards domains which are not ours.
FOREIGN_DOMAIN = "foreign_domain"
#: A disk of many terabytes takes its time: QEMU counts all its clusters.
SNAPSHOT_LIMIT_S = 120.0
#: A first definition makes libvirt try out each QEMU, and libvirt itself waits 30 s for a QEMU that a start began.
START_LIMIT_S = 45.0


class DomainState(StrEnum):
    """What a domain does now. `is_active` tells whether it has a process and memory."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    """Has begun to shut down; still active."""
    STOPPED = "stopped"
    CRASHED = "crashed"
    """Crashed and kept for inspection, still active. Ours never are: they end as STOPPED with the reason "crashed"."""
    SLEEPING = "sleeping"
    """Put to sleep by the guest itself (ACPI S3); still active."""
    UNKNOWN = "unknown"

    @property
    def is_active(self) -> bool:
        return self not in (DomainState.STOPPED, DomainState.UNKNOWN)


class EventKind(StrEnum):
    """What happened to a domain. `RESYNC` comes without a domain: events may have been lost, look at all of them."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    STOPPED = "stopped"
    SHUTDOWN = "shutdown"
    SLEEPING = "sleeping"
    CRASHED = "crashed"
    RESYNC = "resync"
    OTHER = "other"


class ConnectionState(StrEnum):
    LOST = "lost"
    """Was connected and is no more; the next call reconnects."""
    RECOVERED = "recovered"
    """Connected again after a loss; events flow again."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Our mark in a domain's metadata: whose it is, and the binding it was defined under (the fencing token).

    `binding_revision` is the store's mod_revision of hypervisors/ID/guests/GUEST when the domain was defined.
    """

    guest_id: GuestID
    binding_revision: int


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain as libvirt has it now.

    `reason` is libvirt's word for how it came to its state ("booted", "destroyed", "crashed", "unknown" ...).
    `ownership` is None for a domain that is not ours; for a running one it is what it was started with.
    """

    uuid: str
    name: str
    title: str
    state: DomainState
    reason: str
    memory_mb: int
    vcpus: int
    ownership: Ownership | None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host as the hypervisor sees it. `hypervisor` is libvirt's type in lower case ("qemu", "test").

    `domain_types` and `machines` are what it offers for its own architecture `arch`; offering kvm does not mean that
    kvm works (see `domain_type`). `memory_mb` and `cpus` are the whole host's.
    """

    hypervisor: str
    hostname: str
    arch: str
    memory_mb: int
    cpus: int
    domain_types: frozenset[str]
    machines: frozenset[str]
    libvirt_version: int = 0
    """major * 1,000,000 + minor * 1,000 + release."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A file given to the guest as a virtio disk. `device` is its name there: "vda", "vdb" ..."""

    path: str
    device: str
    format: Literal["qcow2", "raw"] = "qcow2"
    readonly: bool = False
    kind: Literal["disk", "seed"] = "disk"
    """A "seed" is always read-only. It is a virtio disk too: cloud-init finds its label on any, and the smallest guest
    kernels have no driver for a CD-ROM."""


@dataclass(frozen=True, slots=True)
class NicSpec:
    """One interface. `mac` in lower case with colons, `bridge` an existing bridge of the host.

    `vlans` are the tags it carries: none for all that the bridge gives, one for an access port, several for a trunk.
    `mtu` in bytes is what the guest's virtio driver sets its interface to; 0 leaves it at its own default.
    """

    mac: str
    bridge: str
    model: str = "virtio"
    vlans: tuple[int, ...] = ()
    switch: Literal["linux", "openvswitch"] = "linux"
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """Boot this kernel instead of the first disk. Paths on the host; `initrd` may be ""."""

    kernel: str
    initrd: str
    cmdline: str


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """All that is needed to define a guest's domain. `title` is the name people read.

    `console_log` is the file that collects the serial console; "" collects nothing. `firmware` "uefi" needs one that
    `firmwares` has.
    """

    guest_id: GuestID
    binding_revision: int
    title: str
    memory_mb: int
    vcpus: int
    domain_type: DomainType
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
    boot: DirectBoot | None = None
    console_log: str = ""
    firmware: Literal["bios", "uefi"] = "bios"


@dataclass(frozen=True, slots=True)
class CpuMetrics:
    """Nanoseconds since the domain was started: of the whole process, and of its vCPUs alone."""

    cpu_time_ns: int
    vcpu_time_ns: int


@dataclass(frozen=True, slots=True)
class DiskMetrics:
    """Counters since the domain was started; times in nanoseconds."""

    disk: str
    read_ops: int
    read_bytes: int
    read_time_ns: int
    write_ops: int
    write_bytes: int
    write_time_ns: int
    flush_ops: int
    flush_time_ns: int


@dataclass(frozen=True, slots=True)
class NicMetrics:
    """Counters since the domain was started, as the guest sees them. `name` is "net0", "net1" ... in spec order."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_drops: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_drops: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """A domain's counters. All zero for a domain that is not active: its counters ended with its process."""

    cpu: CpuMetrics
    disks: tuple[DiskMetrics, ...]
    nics: tuple[NicMetrics, ...]


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A snapshot inside a disk that a running domain holds. `created_s` in seconds since 1970."""

    name: str
    created_s: float


@dataclass(frozen=True, slots=True)
class FilePart:
    """What was read of a file, and where it began, in bytes."""

    content: bytes
    start: int


#: Chooses, by a file's size, where to begin reading and how much, in bytes; never beyond its end.
FileWindow = Callable[[int], tuple[int, int]]
#: Told of a domain's event: its uuid (a guest id when the domain is ours), None with `EventKind.RESYNC`.
EventCallback = Callable[[GuestID | None, EventKind], None]
ConnectionCallback = Callable[[ConnectionState], None]


class Driver(Protocol):
    """See the module's invariants. Safe to share between threads."""

    def host(self) -> HostFacts: ...

    def domains(self) -> tuple[Domain, ...]:
        """Every domain of this host, ours and foreign, active or not, by uuid."""
        ...

    def domain(self, guest_id: GuestID) -> Domain: ...

    def define(self, spec: DomainSpec) -> None:
        """Create the domain, or replace its definition; a running one keeps running and changes at its next start.

        Raises ConflictError when the uuid or the name belongs to a foreign domain. Ends within START_LIMIT_S, not the
        call timeout.
        """
        ...

    def start(self, guest_id: GuestID, *, timeout_s: float | None = None) -> None:
        """Boot it; from paused this does nothing (see `resume`). Ends within `timeout_s`, else the call timeout."""
        ...

    def shutdown(self, guest_id: GuestID) -> None:
        """Press the power button. Answers at once; the guest may take its time, or not listen at all."""
        ...

    def reboot(self, guest_id: GuestID) -> None:
        """Ask the guest to reboot. DriverError when it is not running."""
        ...

    def reset(self, guest_id: GuestID) -> None:
        """Press the reset button: the guest starts over at once. DriverError when it is not running."""
        ...

    def destroy(self, guest_id: GuestID) -> None:
        """Pull the plug. The definition stays."""
        ...

    def suspend(self, guest_id: GuestID) -> None:
        """Stop its vCPUs; memory stays. DriverError when it is not active."""
        ...

    def resume(self, guest_id: GuestID) -> None:
        """Let its vCPUs go on. DriverError when it is not active."""
        ...

    def undefine(self, guest_id: GuestID) -> None:
        """Remove the domain from any state, with its snapshots' records, managed save and nvram. Disk files stay."""
        ...

    def metrics(self, guest_id: GuestID) -> Metrics: ...

    def snapshots(self, guest_id: GuestID, paths: Sequence[str]) -> Mapping[str, Sequence[HeldSnapshot]]:
        """The internal snapshots of these qcow2 files of a running domain, by file. DriverError where it cannot."""
        ...

    def take_snapshot(self, guest_id: GuestID, paths: Sequence[str], name: str) -> None:
        """One internal snapshot of each of these files, all at one moment, or none. The domain goes on running.

        Ends within SNAPSHOT_LIMIT_S, not the call timeout. DriverError where it cannot, and when it is not running.
        """
        ...

    def drop_snapshot(self, guest_id: GuestID, paths: Sequence[str], name: str) -> None:
        """Delete the internal snapshot from these files of a running domain. Ends within SNAPSHOT_LIMIT_S."""
        ...

    def read_file(self, guest_id: GuestID, path: str, window: FileWindow) -> FilePart:
        """Read a file of the guest's that belongs to libvirt alone. DriverError where libvirt cannot either."""
        ...

    def firmwares(self) -> frozenset[str]:
        """What guests may boot with here beside their BIOS: "efi" where libvirt knows an installed UEFI firmware."""
        ...

    def on_event(self, callback: EventCallback) -> None:
        """From now on tell `callback` of every lifecycle event. Connects on the next call, not here."""
        ...

    def on_connection(self, callback: ConnectionCallback) -> None:
        """From now on tell `callback` when the connection is lost and when it is back."""
        ...

    def close(self) -> None:
        """End the connection and all callbacks. Later calls raise UnavailableError. No error when closed already."""
        ...
