"""What is an agent asked for? The JSON of WIRE.md section 6, built from records. Pure.

Invariants:
1. The fields of WIRE.md come first and in its order; fields of ours follow and are left out when they say nothing.
2. The same records give the same request, so that asking twice is asking for the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lochness.errors import ValidationError
from lochness.keys import AGENT_PORT
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.record import JSONObject
from lochness.model.subnet import SubnetRecord

#: A hypervisor's config key that says where its agent listens, when that is not its ip and AGENT_PORT.
AGENT_URL_CONFIG: Final = "agentUrl"

#: What an agent of the original expects of a guest without a VLAN group.
NO_VLAN_GROUP: Final = (1,)

#: What a flavor's metadata tells the agent.
FLAVOR_METADATA: Final = ("firmware",)

_IMAGE_EXTRAS: Final = (
    "sha256",
    "size",
    "format",
    "kernel",
    "kernel_sha256",
    "initrd",
    "initrd_sha256",
    "cmdline",
)


def agent_url(
    hypervisor: HypervisorRecord, agent_url_config: str, port: int = AGENT_PORT, *, scheme: str = "http"
) -> str:
    """Where the hypervisor's agent listens, without a slash at the end. `scheme` is http or https.

    Raises ValidationError when the hypervisor has neither the setting nor an ip.
    """
    if agent_url_config:
        return agent_url_config.rstrip("/")
    if not hypervisor.ip:
        raise ValidationError(
            f"hypervisor {hypervisor.id} has neither an ip nor the config key {AGENT_URL_CONFIG}: "
            "its agent has no address",
            field="ip",
        )
    host = f"[{hypervisor.ip}]" if ":" in hypervisor.ip else hypervisor.ip
    return f"{scheme}://{host}:{port}"


def guest_request(
    guest: GuestRecord, flavor: FlavorRecord, subnet: SubnetRecord, vlans: Sequence[int] = ()
) -> JSONObject:
    """A placed guest as its agent wants it. A flavor without a disk (0 MB) gives a guest without one.

    `vlans` are the tags of the guest's VLAN group. What the flavor's metadata says of the machine (FLAVOR_METADATA)
    holds unless the guest's own says otherwise.
    """
    machine = {name: flavor.metadata[name] for name in FLAVOR_METADATA if name in flavor.metadata}
    disk = {"size": flavor.disk, "image": flavor.image, "source": flavor.image}
    nic = {
        "name": "eth0",
        "network": guest.bridge,
        "model": "virtio",
        "mac": guest.mac,
        "address": guest.ip,
        "netmask": netmask_hex(subnet),
        "gateway": subnet.gateway,
        "vlans": list(vlans or NO_VLAN_GROUP),
    }
    return {
        "id": guest.id,
        "type": guest.type or "kvm",
        "image": flavor.image,
        "nics": [nic],
        "disks": [disk] if flavor.disk else [],
        "memory": flavor.memory,
        "cpu": flavor.cpu,
        "metadata": {**machine, **guest.metadata},
    }


def netmask_hex(subnet: SubnetRecord) -> str:
    """The subnet's netmask in hexadecimal, as the original's agents expect it: "ffffff00" (32 digits for IPv6)."""
    return subnet.ip_network.netmask.packed.hex()


def image_request(image: ImageRecord) -> JSONObject:
    """What the agent needs to fetch the image."""
    request: JSONObject = {"id": image.id, "type": image.type or "kvm", "source": image.source}
    for name in _IMAGE_EXTRAS:
        value = getattr(image, name)
        if value:
            request[name] = value
    return request
