"""What kind of switch is a bridge of this host, how large are its packets, and can it carry VLANs for guests?

libvirt puts a guest's port into VLANs on Open vSwitch, and from 11.0 on a Linux bridge that filters VLANs.

Not guaranteed: anything about a bridge that this process cannot see; libvirt says at the start that it is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

#: virConnectGetLibVersion: major * 1,000,000 + minor * 1,000 + release.
LINUX_VLANS_SINCE: Final = 11_000_000
_INTERFACES: Final = Path("/sys/class/net")
_OVS: Final = "ovs-vsctl"
_OVS_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Bridge:
    """`no_vlans` says why guests' ports cannot be put into VLANs, "" when they can. `mtu` in bytes, 0: not known."""

    switch: Literal["linux", "openvswitch"] = "linux"
    no_vlans: str = ""
    mtu: int = 0


def look_at_bridge(name: str, libvirt_version: Callable[[], int], interfaces: Path = _INTERFACES) -> Bridge:
    """The bridge `name`, an interface's name. What cannot be found out carries no VLANs.

    Raises only what `libvirt_version` does, which is asked only where it matters: it takes libvirt a while to say.
    """
    directory = interfaces / name
    mtu = _mtu(directory / "mtu")
    if (directory / "bridge").is_dir():
        why = _why_no_linux_vlans(directory / "bridge" / "vlan_filtering", libvirt_version)
        return Bridge(no_vlans=why, mtu=mtu)
    if _is_open_vswitch(name):
        return Bridge("openvswitch", mtu=mtu)
    return Bridge(no_vlans="it is neither a Linux bridge nor one of Open vSwitch on this host")


def _why_no_linux_vlans(filtering: Path, libvirt_version: Callable[[], int]) -> str:
    try:
        filters = filtering.read_text().strip() == "1"
    except OSError:
        filters = False
    if not filters:
        return "it is a Linux bridge that does not filter VLANs (ip link set BRIDGE type bridge vlan_filtering 1)"
    if (number := libvirt_version()) < LINUX_VLANS_SINCE:
        version = f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
        return f"it is a Linux bridge, and libvirt {version} puts ports into VLANs there only from 11.0.0 on"
    return ""


def _mtu(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _is_open_vswitch(name: str) -> bool:
    if shutil.which(_OVS) is None:
        return False
    command = [_OVS, f"--timeout={_OVS_TIMEOUT_S:.0f}", "br-exists", name]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=_OVS_TIMEOUT_S + 1, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
