"""Every key of the store, built and taken apart in one place. docs/keys.md is its table; a test compares the two.

Invariants:
1. No other module spells a key.
2. Each key has one writer (docs/keys.md).
3. A prefix ends in "/", so no ID can be a prefix of another's keys.
"""

from __future__ import annotations

from typing import Final

ROOT: Final = "lochness/"
CONFIG_PATH: Final = "lochness/config/"
CONTROLLER_PATH: Final = "lochness/controllers/"
FLAVOR_PATH: Final = "lochness/flavors/"
FWGROUP_PATH: Final = "lochness/fwgroups/"
GROUP_PATH: Final = "lochness/groups/"
GUEST_PATH: Final = "lochness/guests/"
HYPERVISOR_PATH: Final = "lochness/hypervisors/"
IMAGE_PATH: Final = "lochness/images/"
JOB_PATH: Final = "lochness/jobs/"
NETWORK_PATH: Final = "lochness/networks/"
REQUEST_PATH: Final = "lochness/requests/"
SUBNET_PATH: Final = "lochness/subnets/"
TOKEN_PATH: Final = "lochness/tokens/"
VLAN_PATH: Final = "lochness/vlans/"
VLANGROUP_PATH: Final = "lochness/vlangroups/"

#: The hypervisor's setting that keeps new guests away; its value says why.
CORDONED: Final = "cordoned"

#: Where an agent listens unless a hypervisor's config says otherwise (agentUrl).
AGENT_PORT: Final = 8080


def config(key: str) -> str:
    """A cluster-wide setting; `key` may contain slashes."""
    return f"{CONFIG_PATH}{key}"


def controller(id: str) -> str:
    """A running controller, under its lease."""
    return f"{CONTROLLER_PATH}{id}"


def flavor(id: str) -> str:
    return f"{FLAVOR_PATH}{id}/metadata"


def fwgroup(id: str) -> str:
    return f"{FWGROUP_PATH}{id}/metadata"


def image(id: str) -> str:
    return f"{IMAGE_PATH}{id}/metadata"


def network(id: str) -> str:
    return f"{NETWORK_PATH}{id}/metadata"


def network_subnets(id: str) -> str:
    """Prefix of the links from a network to its subnets."""
    return f"{NETWORK_PATH}{id}/subnets/"


def network_subnet(id: str, subnet_id: str) -> str:
    return f"{NETWORK_PATH}{id}/subnets/{subnet_id}"


def network_prefix(id: str) -> str:
    return f"{NETWORK_PATH}{id}/"


def subnet(id: str) -> str:
    return f"{SUBNET_PATH}{id}/metadata"


def subnet_prefix(id: str) -> str:
    return f"{SUBNET_PATH}{id}/"


def subnet_addresses(id: str) -> str:
    """Prefix of a subnet's used addresses."""
    return f"{SUBNET_PATH}{id}/addresses/"


def subnet_address(id: str, ip: str) -> str:
    return f"{SUBNET_PATH}{id}/addresses/{ip}"


def group(name: str) -> str:
    """Prefix of what is written with every placement of a guest of the group; `name` may contain slashes."""
    return f"{GROUP_PATH}{name}/"


def group_placed(name: str) -> str:
    """The guest of the group that was placed last."""
    return f"{GROUP_PATH}{name}/placed"


def guest(id: str) -> str:
    return f"{GUEST_PATH}{id}/metadata"


def guest_prefix(id: str) -> str:
    return f"{GUEST_PATH}{id}/"


def guest_power(id: str) -> str:
    return f"{GUEST_PATH}{id}/power"


def guest_status(id: str) -> str:
    return f"{GUEST_PATH}{id}/status"


def hypervisor(id: str) -> str:
    return f"{HYPERVISOR_PATH}{id}/metadata"


def hypervisor_prefix(id: str) -> str:
    return f"{HYPERVISOR_PATH}{id}/"


def hypervisor_resources(id: str) -> str:
    return f"{HYPERVISOR_PATH}{id}/resources"


def hypervisor_heartbeat(id: str) -> str:
    return f"{HYPERVISOR_PATH}{id}/heartbeat"


def hypervisor_lost(id: str) -> str:
    """Says since when a hypervisor's heartbeat is missing; absent while it beats."""
    return f"{HYPERVISOR_PATH}{id}/lost"


def hypervisor_configs(id: str) -> str:
    """Prefix of a hypervisor's settings."""
    return f"{HYPERVISOR_PATH}{id}/config/"


def hypervisor_config(id: str, key: str) -> str:
    return f"{HYPERVISOR_PATH}{id}/config/{key}"


def hypervisor_subnets(id: str) -> str:
    """Prefix of a hypervisor's subnet-to-bridge mappings."""
    return f"{HYPERVISOR_PATH}{id}/subnets/"


def hypervisor_subnet(id: str, subnet_id: str) -> str:
    return f"{HYPERVISOR_PATH}{id}/subnets/{subnet_id}"


def hypervisor_guests(id: str) -> str:
    """Prefix of the bindings of guests to a hypervisor."""
    return f"{HYPERVISOR_PATH}{id}/guests/"


def hypervisor_guest(id: str, guest_id: str) -> str:
    """The binding of a guest to a hypervisor. Its mod_revision is the fencing token."""
    return f"{HYPERVISOR_PATH}{id}/guests/{guest_id}"


def vlan(tag: str) -> str:
    return f"{VLAN_PATH}{tag}/metadata"


def vlan_prefix(tag: str) -> str:
    return f"{VLAN_PATH}{tag}/"


def vlan_vlangroups(tag: str) -> str:
    """Prefix of the links from a VLAN to its groups."""
    return f"{VLAN_PATH}{tag}/vlangroups/"


def vlan_vlangroup(tag: str, group_id: str) -> str:
    return f"{VLAN_PATH}{tag}/vlangroups/{group_id}"


def vlangroup(id: str) -> str:
    return f"{VLANGROUP_PATH}{id}/metadata"


def vlangroup_prefix(id: str) -> str:
    return f"{VLANGROUP_PATH}{id}/"


def vlangroup_vlans(id: str) -> str:
    """Prefix of the links from a group to its VLANs."""
    return f"{VLANGROUP_PATH}{id}/vlans/"


def vlangroup_vlan(id: str, tag: str) -> str:
    return f"{VLANGROUP_PATH}{id}/vlans/{tag}"


def request(digest: str) -> str:
    """A request that came with an Idempotency-Key, and its answer; `digest` is that of the client and its key."""
    return f"{REQUEST_PATH}{digest}"


def token(id: str) -> str:
    return f"{TOKEN_PATH}{id}"


def job(id: str) -> str:
    return f"{JOB_PATH}{id}"


def last_part(key: str) -> str:
    """What follows the last slash: the ID or address at the end of a link, binding or address key."""
    return key.rpartition("/")[2]


def object_id(key: str, path: str) -> tuple[str, str]:
    """Split `key`, which begins with `path`, into the object's ID and what follows it ("metadata", "guests/ID")."""
    id, _, rest = key[len(path) :].partition("/")
    return id, rest
