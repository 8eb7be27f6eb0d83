"""Real `lochness-node` processes for tests, and the systemd they talk to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lochness import events, keys
from lochness.identity import new_id
from lochness.model.guest import Binding, GuestRecord, GuestStatus, PowerRecord
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.model.resources import ResourcesRecord
from lochness.store.connect import open_store
from lochness.store.protocol import Delete, Key, KeyValue, Put
from lochness_lab.processes import Process
from lochness_lab.waiting import wait_until

CHECKOUT = Path(__file__).parents[2]
START_LIMIT_S = 20.0
STOP_LIMIT_S = 3.0  # promised is a second, on a machine that has time; a call to etcd may take 5


class Systemd:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    @property
    def messages(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._messages.append(self._socket.recv(4096).decode())
        return self._messages

    @property
    def is_ready(self) -> bool:
        return "READY=1" in self.messages

    def close(self) -> None:
        self._socket.close()


class NodeProcess:
    """`lochness-node COMMAND FLAGS`, killed at the end of the block if it still runs."""

    def __init__(
        self, directory: Path, command: str, *flags: str, environment: Mapping[str, str] | None = None
    ) -> None:
        name = f"{command}-{new_id()[:8]}"
        self.systemd = Systemd(directory / f"{name}.notify")
        clean = {
            key: value for key, value in os.environ.items() if not re.match("LOCHNESS_|HYPERVISOR_ID|WATCHDOG", key)
        }
        self.process = Process.start(
            [sys.executable, "-m", "lochness_node.main", command, *flags],
            log=directory / f"{name}.log",
            name=name,
            env={
                **clean,
                "PYTHONPATH": str(CHECKOUT),
                "NOTIFY_SOCKET": str(self.systemd.path),
                "LOCHNESS_LOCK_DIR": str(directory / "lock"),
                "LOCHNESS_METRICS_LISTEN": "off",  # many run at once; who asks for metrics names a place
                "LOCHNESS_GUEST_DIR": str(directory / "guests"),
                **(environment or {}),
            },
            cwd=directory,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.systemd.close()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every event so far, oldest first."""
        lines = self.process.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == event and fields.items() <= entry.items()]

    def wait_for_event(self, event: str, *, limit_s: float = START_LIMIT_S, **fields: object) -> dict[str, Any]:
        return self.process.wait_until(lambda: self.logged(event, **fields), limit_s=limit_s, what=event)[0]

    def wait_until_ready(self, limit_s: float = START_LIMIT_S) -> None:
        self.process.wait_until(lambda: self.systemd.is_ready, limit_s=limit_s, what="READY=1")

    def assert_stops(self) -> None:
        """SIGTERM ends it within a second, with 0 and without a word about anything unexpected."""
        started_s = time.monotonic()
        self.process.signal(signal.SIGTERM)
        assert self.process.wait(START_LIMIT_S) == 0, self.process.log_tail()
        took_s = time.monotonic() - started_s
        assert took_s <= STOP_LIMIT_S, f"SIGTERM took {took_s:.2f} s"
        assert "Traceback" not in self.process.log.read_text()
        assert self.logged(events.DAEMON_STOPPED), self.process.log_tail()


class Cluster:
    """One hypervisor's part of a store, as operators and placements write it."""

    def __init__(self, etcd_url: str, *, registered: bool = True) -> None:
        self.url = etcd_url
        self.id = new_id()
        self.store = open_store(etcd_url)
        if registered:
            self.register()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.store.close()

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--etcd", self.url, "--id", self.id)

    def register(self) -> None:
        self.store.commit([], [Put(keys.hypervisor(self.id), HypervisorRecord(id=self.id).operator_part())])

    def deregister(self) -> None:
        self.store.commit([], [Delete(keys.hypervisor(self.id))])

    def get(self, key: str) -> KeyValue | None:
        return self.store.read(Key(key)).one()

    # -- the heartbeat

    @property
    def heartbeat(self) -> KeyValue | None:
        return self.get(keys.hypervisor_heartbeat(self.id))

    def wait_for_heartbeat(self, limit_s: float = START_LIMIT_S, *, other_than: int = 0) -> KeyValue:
        """The key, once there is one under another lease than `other_than`."""

        def found() -> KeyValue | None:
            heartbeat = self.heartbeat
            return heartbeat if heartbeat and heartbeat.lease_id != other_than else None

        heartbeat = wait_until(found, limit_s=limit_s, what="heartbeat")
        assert heartbeat is not None
        return heartbeat

    def beat(self, *, ttl_s: int = 60, host: str = "", machine: str = "") -> int:
        """Write the heartbeat's key as a daemon would; answers the lease."""
        lease_id = self.store.grant_lease(ttl_s)
        record = HeartbeatRecord(host=host, machine=machine, ttl_s=ttl_s)
        self.store.commit([], [Put(keys.hypervisor_heartbeat(self.id), record.to_json(), lease_id)])
        return lease_id

    # -- guests

    def bind(self, power: str = "running", *, memory: int = 64, guest_id: str = "") -> tuple[str, int]:
        """A guest bound here; answers its id and the binding's revision."""
        id = guest_id or new_id()
        revision = self.store.commit(
            [],
            [
                Put(keys.hypervisor_guest(self.id, id), Binding(memory=memory, disk=100, cpu=1).to_json()),
                Put(keys.guest(id), GuestRecord(id=id, hypervisor=self.id).to_json()),
                Put(keys.guest_power(id), PowerRecord.from_fields({"desired": power}).to_json()),
            ],
        )
        return id, revision

    def want(self, guest_id: str, power: str) -> None:
        self.store.commit([], [Put(keys.guest_power(guest_id), PowerRecord.from_fields({"desired": power}).to_json())])

    def unbind(self, guest_id: str) -> None:
        self.store.commit([], [Delete(keys.hypervisor_guest(self.id, guest_id))])

    def status(self, guest_id: str) -> GuestStatus | None:
        found = self.get(keys.guest_status(guest_id))
        return GuestStatus.from_json(found.value) if found else None

    def wait_for_status(self, guest_id: str, state: str, *, limit_s: float = START_LIMIT_S) -> GuestStatus:
        def found() -> GuestStatus | None:
            status = self.status(guest_id)
            return status if status and status.state == state else None

        status = wait_until(found, limit_s=limit_s, what=f"status {state}")
        assert status is not None
        return status

    # -- resources

    @property
    def resources(self) -> ResourcesRecord | None:
        found = self.get(keys.hypervisor_resources(self.id))
        return ResourcesRecord.from_json(found.value) if found else None
