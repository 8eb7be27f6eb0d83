"""A real agent process for tests, and what it needs to find in the store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from lochness import keys
from lochness.identity import GuestID, new_id
from lochness.model.guest import Binding, GuestRecord
from lochness.model.hypervisor import HeartbeatRecord
from lochness.store.connect import open_store
from lochness.store.protocol import Delete, Put
from lochness_lab.processes import Process
from lochness_lab.waiting import wait_until
from lochness_node.fencing import this_host, this_machine

JSON = dict[str, Any]

START_LIMIT_S = 60
JOB_LIMIT_S = 120.0


class AgentProcess:
    """The agent of a hypervisor of its own, its files below `directory`. `settings` go into its node.toml."""

    def __init__(self, directory: Path, etcd_url: str, *, libvirt: str = "test:///default", **settings: object) -> None:
        self.directory = directory
        self.hypervisor_id = new_id()
        self.etcd_url = etcd_url
        self.guest_dir = directory / "guests"
        self.image_dir = directory / "cache"
        self.source_dir = directory / "sources"
        self.settings: dict[str, object] = {
            "etcd": etcd_url,
            "libvirt": libvirt,
            "id": self.hypervisor_id,
            "guest_dir": str(self.guest_dir),
            "lock_dir": str(directory / "locks"),
            "listen": "127.0.0.1:0",
            "state_dir": str(directory / "state"),
            "image_dir": str(self.image_dir),
            "image_source_dirs": [str(self.source_dir)],
            **settings,
        }
        #: What runs the agent, before its arguments.
        self.program: list[str | Path] = [sys.executable, "-m", "lochness_node.main"]
        self.cwd: Path | None = None
        self.url = ""
        self.http = httpx.Client(timeout=90, trust_env=False)
        self._process: Process | None = None
        self._starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it, however far it came."""
        self.http.close()
        if self._process is not None:
            self._process.stop()

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def launch(self, environment: Mapping[str, str] | None = None) -> Process:
        """Start the process, wait for nothing."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.source_dir.mkdir(exist_ok=True)
        config = self.directory / "node.toml"
        # Strings, numbers, booleans and lists of strings are spelled alike in JSON and TOML.
        shared = ("etcd", "libvirt", "id", "guest_dir", "lock_dir")
        lines = [f"{name} = {json.dumps(self.settings[name])}" for name in shared]
        lines += ['metrics_listen = "off"']
        lines += ["[agent]", *(f"{name} = {json.dumps(v)}" for name, v in self.settings.items() if name not in shared)]
        config.write_text("\n".join(lines) + "\n")
        self._starts += 1
        self._process = Process.start(
            [*self.program, "agent", "--config", config],
            name="agent",
            log=self.directory / f"agent-{self._starts}.log",
            env=environment,
            cwd=self.cwd,
        )
        return self._process

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it is healthy."""
        process = self.launch(environment)
        self.wait_until_listening()
        process.wait_until(self._is_healthy, limit_s=START_LIMIT_S, what="healthy agent")

    def _is_healthy(self) -> bool:
        try:
            return self.get("/healthz").status_code == httpx.codes.OK
        except httpx.TransportError:  # if it has ended, whoever waits says so, with the end of its log
            return False

    def wait_until_listening(self) -> None:
        entry = self.process.wait_until(
            lambda: self.logged("agent.listening"), limit_s=START_LIMIT_S, what="listening agent"
        )
        self.url = f"http://{entry[0]['address']}"

    def logged(self, event: str) -> list[JSON]:
        """The log's entries of this event, of the process that runs now."""
        entries = [json.loads(line) for line in self.process.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    # ---------------------------------------------------------------------------------------------------------- HTTP

    def get(self, path: str, **query: str) -> httpx.Response:
        return self.http.get(self.url + path, params=query)

    def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        return self.http.post(self.url + path, content=content, headers=headers)

    def patch(self, path: str, body: object) -> httpx.Response:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return self.http.patch(self.url + path, content=content)

    def delete(self, path: str) -> httpx.Response:
        return self.http.delete(self.url + path)

    def ended(self, answer: httpx.Response) -> JSON:
        """The job that `answer` named, when it has ended."""
        assert answer.status_code == 202, answer.text
        path = f"/jobs/{answer.headers['X-Guest-Job-ID']}"

        def ended() -> JSON:
            job: JSON = self.get(path, wait_s="10").json()
            return job if job["Status"] in ("Complete", "Error") else {}

        return wait_until(ended, limit_s=JOB_LIMIT_S, what=f"end of {path}")

    def done(self, answer: httpx.Response) -> JSON:
        """As `ended`, for a job that must succeed."""
        job = self.ended(answer)
        assert job["Status"] == "Complete", job
        return job

    def refused(self, answer: httpx.Response) -> JSON:
        """As `ended`, for a job that must fail."""
        job = self.ended(answer)
        assert job["Status"] == "Error", job
        return job

    # --------------------------------------------------------------------------------------------------------- store

    def hold_lease(self) -> None:
        """What the heartbeat daemon would write; without a lease, so that it stays."""
        heartbeat = HeartbeatRecord(host=this_host(), machine=this_machine())
        self._commit(Put(keys.hypervisor_heartbeat(self.hypervisor_id), heartbeat.to_json()))

    def lose_lease(self) -> None:
        self._commit(Delete(keys.hypervisor_heartbeat(self.hypervisor_id)))

    def bind(self, guest_id: str) -> int:
        """What the placement would write; answers the binding's revision."""
        guest = GuestRecord(id=guest_id, hypervisor=self.hypervisor_id)
        return self._commit(
            Put(keys.guest(guest_id), guest.to_json()),
            Put(keys.hypervisor_guest(self.hypervisor_id, guest_id), Binding(memory=1).to_json()),
        )

    def unbind(self, guest_id: str) -> None:
        self._commit(Delete(keys.hypervisor_guest(self.hypervisor_id, guest_id)))

    def _commit(self, *operations: Put | Delete) -> int:
        with open_store(self.etcd_url) as store:
            return store.commit([], operations)

    # -------------------------------------------------------------------------------------------------------- images

    def source(self, name: str, content: bytes) -> str:
        """A file the agent may fetch; its URL."""
        (self.source_dir / name).write_bytes(content)
        return f"file://{self.source_dir / name}"

    def with_image(self, megabytes: int = 1, beginning: bytes = b"") -> str:
        """An image that is here, zeros but for its `beginning`; its id."""
        id = new_id()
        source = self.source(f"{id}.raw", beginning.ljust(megabytes << 20, b"\0"))
        self.done(self.post("/images", {"id": id, "type": "kvm", "source": source}))
        return id

    def guest(self, image: str, **changes: object) -> JSON:
        """A request for a guest on `image`, not bound yet."""
        return {
            "id": GuestID(new_id()),
            "type": "kvm",
            "image": image,
            "nics": [
                {
                    "name": "eth0", "network": "br0", "model": "virtio", "mac": "02:e4:13:09:b7:b4",
                    "address": "10.10.10.170", "netmask": "ffffff00", "gateway": "10.10.10.1", "vlans": [1],
                }
            ],
            "disks": [{"size": 4, "image": image, "source": image}],
            "memory": 64,
            "cpu": 1,
            "metadata": {"name": "web-1"},
            **changes,
        }  # fmt: skip

    def running_guest(self) -> JSON:
        """A guest that was created; the request."""
        guest = self.guest(self.with_image())
        self.bind(guest["id"])
        self.done(self.post("/guests", guest))
        return guest


@contextmanager
def leased_agent(directory: Path, etcd_url: str, **settings: Any) -> Iterator[AgentProcess]:
    """A healthy agent whose hypervisor holds its lease."""
    with AgentProcess(directory, etcd_url, **settings) as agent:
        agent.hold_lease()
        yield agent
