"""The hypervisors that the driver's contract is tested on, each with a door beside the driver."""

from __future__ import annotations

import subprocess
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import libvirt

from lochness.identity import GuestID, new_id
from lochness_lab.waiting import wait_until
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import (
    ConnectionState,
    DiskSpec,
    DomainSpec,
    DomainState,
    DomainType,
    Driver,
    EventKind,
)

EVENT_LIMIT_S = 10.0


class Events:
    """What a driver told its callbacks, in order."""

    def __init__(self, driver: Driver) -> None:
        self._told: list[tuple[GuestID | None, EventKind]] = []
        self.states: list[ConnectionState] = []
        self.threads: set[threading.Thread] = set()
        driver.on_event(self._on_event)
        driver.on_connection(self.states.append)

    def _on_event(self, guest_id: GuestID | None, kind: EventKind) -> None:
        self.threads.add(threading.current_thread())
        self._told.append((guest_id, kind))

    def of(self, guest_id: GuestID | None) -> list[EventKind]:
        return [kind for about, kind in self._told if about == guest_id]

    def wait_for(self, guest_id: GuestID | None, kind: EventKind) -> None:
        wait_until(lambda: kind in self.of(guest_id), limit_s=EVENT_LIMIT_S, what=f"event {kind} of {guest_id}")

    def wait_for_connection(self, state: ConnectionState, *, limit_s: float = EVENT_LIMIT_S) -> None:
        wait_until(lambda: state in self.states, limit_s=limit_s, what=f"connection {state}")


class Hypervisor:
    """One libvirt: the driver under test, and another connection for what others do to domains."""

    def __init__(self, uri: str, domain_type: DomainType, directory: Path, *, call_timeout_s: float = 10.0) -> None:
        self.uri = uri
        self.domain_type: DomainType = domain_type
        self.directory = directory
        self.driver = LibvirtDriver(uri, call_timeout_s=call_timeout_s)
        self.events = Events(self.driver)
        self.driver.host()  # libvirt's event loop must exist before the first connection, ours below included
        self._made: list[str] = []

    def spec(self, **changes: Any) -> DomainSpec:
        """A small guest that boots nothing."""
        values: dict[str, Any] = {
            "guest_id": GuestID(new_id()),
            "binding_revision": 7,
            "title": "a guest",
            "memory_mb": 32,
            "vcpus": 1,
            "domain_type": self.domain_type,
            "console_log": str(self.directory / f"{uuid.uuid4()}.log"),
        } | changes
        self._made.append(values["guest_id"])
        return DomainSpec(**values)

    def disk(self) -> DiskSpec:
        """An empty disk; a real file, also where nobody reads it."""
        path = self.directory / f"{uuid.uuid4()}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True, timeout=30)
        return DiskSpec(str(path), "vda")

    def defined(self, **changes: Any) -> GuestID:
        spec = self.spec(**changes)
        self.driver.define(spec)
        return spec.guest_id

    def started(self, **changes: Any) -> GuestID:
        guest_id = self.defined(**changes)
        self.driver.start(guest_id)
        return guest_id

    def state(self, guest_id: GuestID) -> DomainState:
        return self.driver.domain(guest_id).state

    def wait_for_state(self, guest_id: GuestID, state: DomainState, *, limit_s: float = 30.0) -> None:
        wait_until(lambda: self.state(guest_id) is state, limit_s=limit_s, what=f"state {state} of {guest_id}")

    def foreign(self, *, name: str = "", id: str = "") -> str:
        """Somebody else's domain; answers its uuid."""
        id = id or new_id()
        self._made.append(id)
        xml = (
            f"<domain type='{self.domain_type}'><name>{name or 'foreign-' + id}</name><uuid>{id}</uuid>"
            "<memory unit='MiB'>48</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>"
        )
        with Door(self.uri) as door:
            door.defineXML(xml)
        return id

    def snapshot(self, guest_id: GuestID) -> None:
        with Door(self.uri) as door:
            door.lookupByUUIDString(guest_id).snapshotCreateXML("<domainsnapshot><name>s</name></domainsnapshot>")

    def kill_beside(self, guest_id: GuestID) -> None:
        """Somebody else pulls the plug."""
        with Door(self.uri) as door:
            door.lookupByUUIDString(guest_id).destroy()

    def close(self) -> None:
        """Remove every domain that was made here."""
        with Door(self.uri) as door:
            for id in self._made:
                with suppress(libvirt.libvirtError):
                    domain = door.lookupByUUIDString(id)
                    with suppress(libvirt.libvirtError):
                        domain.destroy()
                    domain.undefineFlags(
                        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    )
        self.driver.close()


class Door:
    """A plain connection, closed at the end of the block."""

    def __init__(self, uri: str) -> None:
        self._connection: Any = libvirt.open(uri)

    def __enter__(self) -> Any:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
