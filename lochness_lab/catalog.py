"""What must an operator enter before the first guest? The command lines for a cluster of the laboratory. Pure, almost.

Only `first_image` touches the disk: it has the demo guest's image built, or writes a blank one for the test driver.
"""

from __future__ import annotations

import hashlib
import ipaddress

from lochness_lab.cluster import Cluster
from lochness_lab.guest_image import MEMORY_MB, guest_image

HYPERVISOR = "demo-hv"
NETWORK = "demo-net"
SUBNET = "demo-subnet"
IMAGE = "tiny-linux"
FLAVOR = "tiny"
DISK_MB = 16

Words = tuple[str, ...]


def first_image(cluster: Cluster) -> Words:
    """The options of `lochness image create` for an image that guests of `cluster` can boot, built when missing.

    Raises ConfigurationError, DeadlineError.
    """
    if cluster.has_real_guests:
        image = guest_image()
        return (
            *("--source", image.disk.as_uri(), "--sha256", image.sha256["disk"], "--format", "qcow2"),
            *("--kernel", image.kernel.as_uri(), "--kernel-sha256", image.sha256["kernel"]),
            *("--initrd", image.initrd.as_uri(), "--initrd-sha256", image.sha256["initrd"]),
            *("--cmdline", image.cmdline),
        )
    # The test driver reads no disk; the agent does, and checks it.
    content = b"\0" * (1 << 20)
    path = cluster.source_dir / "blank.raw"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return ("--source", path.as_uri(), "--sha256", hashlib.sha256(content).hexdigest(), "--format", "raw")


def registration(cluster: Cluster) -> list[Words]:
    """Make the hypervisor known, and where its agent is."""
    address = str(ipaddress.ip_interface(cluster.bridge_address).ip)
    return [
        ("hv", "create", "--id", cluster.hypervisor_id, "--name", HYPERVISOR, "--ip", address),
        ("hv", "config", HYPERVISOR, f"agentUrl={cluster.agent_url}"),
    ]


def catalog(cluster: Cluster, image: Words) -> list[Words]:
    """A network with a subnet on the cluster's bridge, an image and a flavor. `image` is `first_image`'s."""
    bridge = ipaddress.ip_interface(cluster.bridge_address)
    first, last = bridge.network[10], bridge.network[99]
    return [
        ("network", "create", "--name", NETWORK),
        (
            *("subnet", "create", "--name", SUBNET, "--network", NETWORK, "--cidr", str(bridge.network)),
            *("--start", str(first), "--end", str(last), "--gateway", str(bridge.ip)),
        ),
        ("hv", "subnets", HYPERVISOR, f"{SUBNET}={cluster.bridge}"),
        ("image", "create", "--name", IMAGE, *image),
        ("flavor", "create", "--name", FLAVOR, "--image", IMAGE, "--memory", str(MEMORY_MB), "--disk", str(DISK_MB)),
    ]


def guest_creation(name: str) -> Words:
    """Create a guest of the catalog's flavor and follow its job."""
    return ("guest", "create", "--name", name, "--flavor", FLAVOR, "--network", NETWORK, "--wait")
