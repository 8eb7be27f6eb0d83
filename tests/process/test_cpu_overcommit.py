"""`cpu_overcommit` in a hypervisor's node.toml decides how many guests a controller places there."""

from __future__ import annotations

from pathlib import Path

from lochness_lab.etcd import EtcdServer
from lochness_lab.fake_agent import FakeAgent
from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, RunningController
from tests.process.node_daemons import Cluster, NodeProcess


def resources(directory: Path, cluster: Cluster, overcommit: float) -> NodeProcess:
    """The resources daemon of a host without domains."""
    (directory / "host.xml").write_text("<node/>")
    config = directory / "node.toml"
    config.write_text(f"[resources]\nreserve_memory_mb = 0\nreserve_disk_mb = 0\ncpu_overcommit = {overcommit}\n")
    uri = f"test://{directory / 'host.xml'}"
    return NodeProcess(directory, "resources", *cluster.flags, "--config", str(config), "--libvirt", uri)


def offered_cpus(cluster: Cluster) -> int:
    record = cluster.resources
    return record.total.cpu if record is not None else 0


def test_twice_the_ratio_is_twice_the_guests(own_etcd: EtcdServer, tmp_path: Path) -> None:
    controller = RunningController(own_etcd.url)
    try:
        with FakeAgent() as agent, Cluster(own_etcd.url) as cluster, Api(controller.url) as api:
            cluster.beat(ttl_s=600)
            with resources(tmp_path, cluster, 1.0) as daemon:
                daemon.wait_until_ready()
                cpus = wait_until(lambda: offered_cpus(cluster), limit_s=30, what="the host's record")
            creation = whole_host_guest(api, cluster, agent, cpus)
            assert api.get("/capacity", params={"flavor": creation["flavor"]}).json()["guests"] == 1
            assert api.finished(api.post("/guests", json=creation))["status"] == "done"
            refused = api.finished(api.post("/guests", json=creation))
            assert (refused["status"], refused["reason"]) == ("error", "no_candidate")
            assert "insufficient_cpu" in str(refused)
            with resources(tmp_path, cluster, 2.0) as daemon:
                daemon.wait_until_ready()
                wait_until(lambda: offered_cpus(cluster) == 2 * cpus, limit_s=30, what="twice the CPUs on offer")
            assert api.finished(api.post("/guests", json=creation))["status"] == "done"
            assert api.finished(api.post("/guests", json=creation))["reason"] == "no_candidate"
    finally:
        controller.stop()


def whole_host_guest(api: Api, cluster: Cluster, agent: FakeAgent, cpus: int) -> dict[str, str]:
    """What is posted for a guest that takes all CPUs of the host, and little else."""
    assert api.patch(f"/hypervisors/{cluster.id}/config", json={"agentUrl": agent.url}).status_code == 200
    network = api.made("/networks", {})["id"]
    addresses = {"cidr": "10.9.0.0/24", "start": "10.9.0.10", "end": "10.9.0.99", "gateway": "10.9.0.1"}
    subnet = api.made("/subnets", {"network": network, **addresses})["id"]
    assert api.patch(f"/hypervisors/{cluster.id}/subnets", json={subnet: "br0"}).status_code == 200
    image = api.made("/images", {"source": "http://images.example/tiny.qcow2", "sha256": "ab" * 32})["id"]
    flavor = api.made("/flavors", {"image": image, "memory": 16, "disk": 16, "cpu": cpus})["id"]
    return {"flavor": flavor, "network": network}
