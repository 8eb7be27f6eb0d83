"""What does cloud-init in the guest get to read? The three files of a NoCloud seed. Pure.

1. meta-data and network-config are JSON, which is YAML: no value can break out of its place.
2. The host name is one that RFC 1123 allows, whatever the guest is called.

Not guaranteed: that user data is valid; it is the user's and is handed on as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lochness_node.agent.wire import Guest, Nic, prefix_length
from lochness_node.agent.wishes import nameservers, ssh_keys

NO_USER_DATA: Final = "#cloud-config\n{}\n"
_LABEL_MAX: Final = 63


@dataclass(frozen=True, slots=True)
class Seed:
    """The files' contents; `files` is by the names that cloud-init looks for."""

    meta_data: str
    network_config: str
    user_data: str

    @property
    def files(self) -> dict[str, bytes]:
        return {
            "meta-data": self.meta_data.encode(),
            "network-config": self.network_config.encode(),
            "user-data": self.user_data.encode(),
        }


def seed_for(guest: Guest) -> Seed:
    """The seed of a valid `guest`: its id as instance-id, and what its metadata asks for (`wishes`)."""
    meta_data: dict[str, Any] = {"instance-id": guest.id, "local-hostname": host_name(guest)}
    if keys := ssh_keys(guest.metadata):
        meta_data["public-keys"] = keys
    return Seed(
        meta_data=_json(meta_data),
        network_config=_json(
            {
                "version": 2,
                "ethernets": {
                    nic_name(nic, index): _ethernet(nic, index, nameservers(guest.metadata))
                    for index, nic in enumerate(guest.nics)
                },
            }
        ),
        user_data=guest.metadata.get("user-data") or NO_USER_DATA,
    )


def host_name(guest: Guest) -> str:
    """The guest's name made one that a host may have; where nothing is left of it, the first part of its id."""
    labels = re.sub(r"[^a-z0-9.]+", "-", guest.metadata.get("name", "").lower()).split(".")
    name = labels[0].strip("-")[:_LABEL_MAX].rstrip("-")
    return name or guest.id.partition("-")[0]


def nic_name(nic: Nic, index: int) -> str:
    return nic.name or f"eth{index}"


def _ethernet(nic: Nic, index: int, nameservers: list[str]) -> dict[str, Any]:
    ethernet: dict[str, Any] = {"match": {"macaddress": nic.mac}, "set-name": nic_name(nic, index)}
    if not nic.address:
        return {**ethernet, "dhcp4": True}
    length = prefix_length(nic.netmask, nic.address, f"nics[{index}].netmask")
    ethernet["addresses"] = [f"{nic.address}/{length}"]
    if nic.gateway:
        ethernet["routes"] = [{"to": _everywhere(nic.gateway), "via": nic.gateway}]
    if nameservers:  # an empty list is an invalid command to cloud-init 22.4
        ethernet["nameservers"] = {"addresses": nameservers}
    return ethernet


def _everywhere(gateway: str) -> str:
    """The destination that is everything: as "default" it stops cloud-init before 22.3, and netplan before 0.100."""
    return "::/0" if ":" in gateway else "0.0.0.0/0"


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
