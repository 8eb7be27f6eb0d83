"""A guest's whole life through the operator's command, on real etcd, libvirt and QEMU, and on libvirt's test driver."""

from __future__ import annotations

from typing import Any

import pytest

from lochness_lab.catalog import FLAVOR, HYPERVISOR, IMAGE, NETWORK, guest_creation
from lochness_lab.cluster import Cluster
from lochness_lab.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

STATE_LIMIT_S = 30
BOOT_LIMIT_S = 90


def in_state(cluster: Cluster, name: str, state: str) -> dict[str, Any]:
    """The guest as soon as it is seen in that state."""

    def found() -> dict[str, Any] | None:
        guest = cluster.record("guest", "show", name)
        return guest if guest.get("status", {}).get("state") == state else None

    guest = wait_until(found, limit_s=STATE_LIMIT_S, what=f"{name} in state {state}")
    assert guest is not None
    return guest


def available(cluster: Cluster) -> dict[str, int]:
    resources: dict[str, int] = cluster.record("hv", "show", HYPERVISOR)["available_resources"]
    return resources


def test_a_life(qemu_cluster: Cluster):
    cluster = qemu_cluster
    before = available(cluster)  # but the disk's, where others write too
    cluster.record(*guest_creation("web"))
    guest = in_state(cluster, "web", "running")
    id, ip = guest["id"], guest["ip"]
    assert guest["hypervisor"] == cluster.hypervisor_id
    assert guest["status"]["hypervisor"] == cluster.hypervisor_id
    assert (guest["bridge"], guest["power"]) == (cluster.bridge, "running")
    assert cluster.domains() == [id]
    wait_until(lambda: "GUEST-READY" in cluster.console(id), limit_s=BOOT_LIMIT_S, what="ready line on the console")
    assert f"GUEST-IP {ip}" in cluster.console(id)
    assert cluster.pings(ip)
    wait_until(lambda: available(cluster)["cpu"] == before["cpu"] - 1, limit_s=5, what="claim in the resources")

    cluster.record("guest", "shutdown", "web", "--wait")
    assert in_state(cluster, "web", "stopped")["power"] == "stopped"
    assert not cluster.pings(ip, 1)
    assert "GUEST-POWERBUTTON" in cluster.console(id)

    cluster.record("guest", "start", "web", "--wait")
    in_state(cluster, "web", "running")
    wait_until(lambda: cluster.pings(ip, 1), limit_s=BOOT_LIMIT_S, what=f"answer from {ip}")

    cluster.record("guest", "suspend", "web", "--wait")
    in_state(cluster, "web", "paused")
    assert not cluster.pings(ip, 1)
    cluster.record("guest", "resume", "web", "--wait")
    in_state(cluster, "web", "running")
    wait_until(lambda: cluster.pings(ip, 1), limit_s=STATE_LIMIT_S, what=f"answer from {ip}")

    cluster.record("guest", "delete", "web", "--wait")
    assert cluster.left_of(id) == []
    assert cluster.domains() == []

    def is_given_back() -> bool:
        return all(available(cluster)[name] == before[name] for name in ("memory", "cpu"))

    wait_until(is_given_back, limit_s=5, what="all of the hypervisor's resources back")


def test_a_life_on_the_test_driver(driver_cluster: Cluster):
    cluster = driver_cluster
    cluster.record(*guest_creation("web"))
    id = in_state(cluster, "web", "running")["id"]
    assert cluster.domains() == [id]
    cluster.record("guest", "shutdown", "web", "--wait")
    in_state(cluster, "web", "stopped")
    cluster.record("guest", "start", "web", "--wait")
    in_state(cluster, "web", "running")
    cluster.record("guest", "delete", "web", "--wait")
    assert cluster.left_of(id) == []
    assert cluster.domains() == []


def test_the_address_of_a_deleted_guest_is_free_again(driver_cluster: Cluster):
    addresses = []
    for _ in range(2):
        guest = driver_cluster.record(*guest_creation("web"))
        addresses.append(guest["ip"])
        driver_cluster.record("guest", "delete", "web", "--wait")
    assert addresses[0] == addresses[1]


def test_a_delete_right_after_the_create_wins(cluster: Cluster):
    (guest,) = cluster.records(*guest_creation("web")[:-1])
    cluster.record("guest", "delete", "web", "--wait")
    assert cluster.left_of(guest["id"]) == []


def test_a_stopped_guest_is_deleted_too(cluster: Cluster):
    id = cluster.record(*guest_creation("web"))["id"]
    cluster.record("guest", "poweroff", "web", "--wait")
    in_state(cluster, "web", "stopped")
    cluster.record("guest", "delete", "web", "--wait")
    assert cluster.left_of(id) == []


def test_a_flavor_too_big_is_refused_with_numbers(driver_cluster: Cluster):
    cluster = driver_cluster
    total = cluster.record("hv", "show", HYPERVISOR)["total_resources"]["memory"]
    cluster.record("flavor", "create", "--name", "huge", "--image", IMAGE, "--memory", str(total * 2))
    ended = cluster.cli("guest", "create", "--name", "elephant", "--flavor", "huge", "--network", NETWORK, "--wait")
    assert ended.returncode == 1
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("lochness: elephant: select-hypervisor failed: ")
    overhead = 128  # QEMU's own, which is claimed too
    assert f"insufficient_memory: wanted {total * 2 + overhead} MB, had {total} MB" in line
    id = cluster.record("guest", "show", "elephant")["id"]
    cluster.record("guest", "delete", "elephant", "--wait")
    assert cluster.left_of(id) == []
    cluster.record("flavor", "delete", "huge")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("guest", "create", "--flavor", "0" * 32, "--network", NETWORK), 4, "does not exist"),
        (("guest", "create", "--flavor", FLAVOR, "--network", "nowhere"), 4, "network 'nowhere' does not exist"),
        (("guest", "start", "nobody"), 4, "guest 'nobody' does not exist"),
        (("hv", "modify", HYPERVISOR, "--ip", "300.1.1.1"), 2, "ip must be an IP address, got '300.1.1.1'"),
        (("subnet", "create", "--cidr", "x", "--start", "10.0.0.1", "--end", "10.0.0.2"), 2, "cidr must be a network"),
        (("image", "create", "--source", "ftp://x/y"), 2, "source must be an http, https or file URL"),
        (("hv", "create", "--id", "f" * 32, "--mac", "zz"), 2, "mac must be a MAC address"),
    ],
)
def test_a_refusal_is_one_line(driver_cluster: Cluster, words: tuple[str, ...], status: int, text: str):
    ended = driver_cluster.cli(*words)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr.startswith("lochness: ")
    assert ended.stderr.count("\n") == 1
    assert text in ended.stderr


def test_an_existing_id_is_a_conflict(driver_cluster: Cluster):
    ended = driver_cluster.cli("hv", "create", "--id", driver_cluster.hypervisor_id)
    assert ended.returncode == 5
    assert driver_cluster.hypervisor_id in ended.stderr


def test_a_hypervisor_with_guests_stays(driver_cluster: Cluster):
    driver_cluster.record(*guest_creation("web"))
    ended = driver_cluster.cli("hv", "delete", HYPERVISOR)
    assert ended.returncode == 5
    driver_cluster.record("guest", "delete", "web", "--wait")
    assert driver_cluster.record("hv", "show", HYPERVISOR)["id"] == driver_cluster.hypervisor_id


def test_people_get_tables(driver_cluster: Cluster):
    driver_cluster.record(*guest_creation("web"))
    in_state(driver_cluster, "web", "running")
    hypervisors = driver_cluster.cli("hv", "list").stdout.splitlines()
    assert hypervisors[0].split() == ["NAME", "ID", "ALIVE", "MEMORY", "DISK", "CPU", "GUESTS", "ADDRESS"]
    assert hypervisors[1].split()[:3] == [HYPERVISOR, driver_cluster.hypervisor_id, "yes"]
    assert hypervisors[1].split()[-2:] == ["1", "10.44.0.1"]
    guests = driver_cluster.cli("guest", "list").stdout.splitlines()
    assert guests[1].split()[0::2] == ["web", "running", "10.44.0.10"]
    assert guests[1].split()[-1] == FLAVOR
    jobs = driver_cluster.cli("job", "list", "--guest", "web").stdout.splitlines()
    assert "create" in jobs[1]
    driver_cluster.record("guest", "delete", "web", "--wait")
