"""A controller on a port of its own, and a small cluster to talk to it about."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import httpx

from lochness import keys
from lochness.clock import SystemClock
from lochness.invariants import Violation, check
from lochness.model.resources import Resources, ResourcesRecord
from lochness.store.connect import open_store
from lochness.store.protocol import Prefix as KeysBelow
from lochness.store.protocol import Put, Store
from lochness_controller.service import Controller
from lochness_controller.settings import ControllerSettings
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until

JOB_HEADER = "X-Guest-Job-ID"
LIMIT_S = 20.0


class RunningController:
    """The whole controller in a thread, as main.py runs it, without its signals."""

    def __init__(self, etcd_url: str, *, listen: str = "127.0.0.1:0", **settings: Any) -> None:
        self.settings = ControllerSettings(etcd=etcd_url, listen=[listen], **settings)
        self.store = open_store(etcd_url, timeout_s=self.settings.etcd_timeout_s)
        self.controller = Controller(self.settings, self.store, clock=SystemClock())
        self.url = f"http://{self.controller.addresses[0]}"
        self._thread = threading.Thread(target=self.controller.run, name="controller")
        self._thread.start()

    def stop(self) -> None:
        self.controller.ask_stop()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        self.store.close()


class Api(httpx.Client):
    """The client of one controller; answers are asserted on as they come."""

    def __init__(self, url: str) -> None:
        super().__init__(base_url=url, trust_env=False, timeout=30)

    def made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST a record that must be created."""
        answer = self.post(path, json=body)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def finished(self, answer: httpx.Response) -> dict[str, Any]:
        """The job that `answer` (202) names, once it is done or has failed."""
        assert answer.status_code == 202, answer.text
        return self.job_end(answer.headers[JOB_HEADER])

    def job_end(self, job_id: str) -> dict[str, Any]:
        """The job once it is done or has failed."""

        def ended() -> dict[str, Any]:
            job: dict[str, Any] = self.get(f"/jobs/{job_id}", params={"wait_s": "5"}).json()
            return job if job["status"] in ("done", "error") else {}

        return wait_until(ended, limit_s=LIMIT_S, what=f"end of job {job_id}")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One hypervisor with an agent, and all that a guest needs, made over the API."""

    api: Api
    store: Store
    agent: FakeAgent
    hypervisor: str
    network: str
    subnet: str
    image: str
    flavor: str

    def create_guest(self, **fields: Any) -> httpx.Response:
        return self.api.post("/guests", json={"flavor": self.flavor, "network": self.network, **fields})

    def running_guest(self, **fields: Any) -> dict[str, Any]:
        """A guest whose create is done."""
        answer = self.create_guest(**fields)
        job = self.api.finished(answer)
        assert job["status"] == "done", job
        guest: dict[str, Any] = self.api.get(f"/guests/{answer.json()['id']}").json()
        return guest

    def keys_with(self, part: str) -> list[str]:
        """Every key with `part` in it, jobs aside."""
        items = self.store.read(KeysBelow(keys.ROOT, keys_only=True)).ranges[0]
        return [item.key for item in items if part in item.key and not item.key.startswith(keys.JOB_PATH)]

    def violations(self) -> tuple[Violation, ...]:
        return check(self.store.read(KeysBelow(keys.ROOT)).ranges[0])


def make_cluster(
    api: Api, store: Store, agent: FakeAgent, *, memory: int = 8192, disk: int = 100_000, cpu: int = 16
) -> Cluster:
    """A cluster of one living hypervisor, apart from all others by its network."""
    hypervisor = api.made("/hypervisors", {"ip": "127.0.0.1"})["id"]
    assert api.patch(f"/hypervisors/{hypervisor}/config", json={"agentUrl": agent.url}).status_code == 200
    network = api.made("/networks", {})["id"]
    subnet = api.made(
        "/subnets",
        {"network": network, "cidr": "10.9.0.0/24", "start": "10.9.0.10", "end": "10.9.0.99", "gateway": "10.9.0.1"},
    )["id"]
    assert api.patch(f"/hypervisors/{hypervisor}/subnets", json={subnet: "br0"}).status_code == 200
    image = api.made("/images", {"source": "http://images.example/tiny.qcow2", "sha256": "ab" * 32})["id"]
    flavor = api.made("/flavors", {"image": image, "memory": 512, "disk": 1024, "cpu": 1})["id"]
    resources = Resources(memory=memory, disk=disk, cpu=cpu)
    store.commit(
        (),
        (
            Put(keys.hypervisor_resources(hypervisor), ResourcesRecord(total=resources, available=resources).to_json()),
            Put(keys.hypervisor_heartbeat(hypervisor), b"{}"),
        ),
    )
    return Cluster(api, store, agent, hypervisor, network, subnet, image, flavor)
