"""What does a laboratory of N hypervisors consist of, and what is in its hosts' configuration? Pure.

1. m1 carries the controller and the operator's command; h1 ... hN carry guests. The first three of m1, h1, h2 are
   etcd's members, one alone when there are fewer.
2. A hypervisor's ID follows from its name: the same laboratory again is the same cluster.
3. Guests never get more memory than the machine has: of N hypervisors each offers 1/(N+1) of it, the rest is the
   machine's own. Processors are shared, and offered several times.
"""

from __future__ import annotations

import ipaddress
import uuid
from dataclasses import dataclass
from typing import Final

from lochness.errors import ConfigurationError

MANAGEMENT: Final = "m1"
HYPERVISORS_MAX: Final = 40
NETWORK: Final = ipaddress.ip_network("10.77.0.0/24")
#: The hosts' bridge, with the uplink and every guest on it.
BRIDGE: Final = "br0"
SWITCH_ADDRESS: Final = NETWORK[254]
GUESTS_FIRST, GUESTS_LAST = NETWORK[100], NETWORK[249]
CONTROLLER_PORT: Final = 17000
#: What a host of a laboratory has no use for.
_UNWANTED: Final = (
    *("systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service", "apt-daily.timer"),
    *(
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "libvirt-guests.service",
    ),
)
_IDS: Final = uuid.UUID("6f0f4a52-8d3c-4f0e-9d0a-2a5c9be40a77")


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host: its name, its address on the common network, what it carries."""

    name: str
    address: str
    is_hypervisor: bool
    has_etcd: bool

    @property
    def hypervisor_id(self) -> str:
        return str(uuid.uuid5(_IDS, self.name))

    @property
    def mac(self) -> str:
        """Low and fixed: a bridge takes its lowest port's, and must not take a guest's."""
        return "02:00:" + ":".join(f"{byte:02x}" for byte in ipaddress.ip_address(self.address).packed)


def plan(hypervisors: int) -> tuple[HostPlan, ...]:
    """m1 and h1 ... hN. Raises ConfigurationError for fewer than one or more than 40 hypervisors."""
    if not 1 <= hypervisors <= HYPERVISORS_MAX:
        raise ConfigurationError(f"a laboratory has 1 to {HYPERVISORS_MAX} hypervisors, not {hypervisors}")
    members = 3 if hypervisors >= 2 else 1
    hosts = [HostPlan(MANAGEMENT, str(NETWORK[10]), is_hypervisor=False, has_etcd=True)]
    hosts += [
        HostPlan(f"h{number}", str(NETWORK[10 + number]), is_hypervisor=True, has_etcd=number < members)
        for number in range(1, hypervisors + 1)
    ]
    return tuple(hosts)


def etcd_urls(hosts: tuple[HostPlan, ...]) -> str:
    """What a daemon's setting `etcd` gets."""
    return ",".join(f"http://{host.address}:2379" for host in hosts if host.has_etcd)


def files(host: HostPlan, hosts: tuple[HostPlan, ...]) -> dict[str, str]:
    """The files that make a host itself: absolute paths and contents."""
    names = "".join(f"{other.address} {other.name}\n" for other in hosts)
    found = {
        "/etc/hostname": f"{host.name}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n{names}",
        "/etc/machine-id": f"{uuid.uuid5(_IDS, 'machine ' + host.name).hex}\n",
        "/etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n",
    }
    if host.has_etcd:
        found["/etc/default/etcd"] = _etcd(host, hosts)
    if host.is_hypervisor:
        found["/etc/lochness/node.toml"] = _node(host, hosts)
        found["/etc/libvirt/libvirtd.conf"] = f'host_uuid = "{host.hypervisor_id}"\nlog_outputs = "2:stderr"\n'
        # Devices and cgroups belong to the real machine; a container is given neither.
        found["/etc/libvirt/qemu.conf"] = 'cgroup_controllers = []\nnamespaces = []\nsecurity_driver = "none"\n'
    else:
        found["/etc/lochness/controller.toml"] = f'etcd = "{etcd_urls(hosts)}"\n'
    return found


def units(host: HostPlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The units that a host enables, and those that it does without."""
    etcd = ("etcd.service",)
    libvirt = ("libvirtd.service", "virtlogd.socket", "virtlockd.socket")
    sockets = ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
    wanted = (*(libvirt if host.is_hypervisor else ()), *(etcd if host.has_etcd else ()))
    absent = (*(() if host.is_hypervisor else (*libvirt, *sockets)), *(() if host.has_etcd else etcd))
    return wanted, (*_UNWANTED, *absent)


def _etcd(host: HostPlan, hosts: tuple[HostPlan, ...]) -> str:
    members = ",".join(f"{other.name}=http://{other.address}:2380" for other in hosts if other.has_etcd)
    values = {
        "NAME": host.name,
        "DATA_DIR": "/var/lib/etcd/lab",
        "LISTEN_CLIENT_URLS": f"http://{host.address}:2379,http://127.0.0.1:2379",
        "ADVERTISE_CLIENT_URLS": f"http://{host.address}:2379",
        "LISTEN_PEER_URLS": f"http://{host.address}:2380",
        "INITIAL_ADVERTISE_PEER_URLS": f"http://{host.address}:2380",
        "INITIAL_CLUSTER": members,
        "INITIAL_CLUSTER_TOKEN": "lochness-lab",
        # Emulated guests take all processors of a small machine: elections must not follow from that.
        "HEARTBEAT_INTERVAL": "200",
        "ELECTION_TIMEOUT": "2000",
        "AUTO_COMPACTION_RETENTION": "1",
    }
    return "".join(f"ETCD_{name}={value}\n" for name, value in values.items())


def _node(host: HostPlan, hosts: tuple[HostPlan, ...]) -> str:
    return (
        f'id = "{host.hypervisor_id}"\n'
        f'etcd = "{etcd_urls(hosts)}"\n'
        f"[resources]\nreserve_memory_percent = {_reserve_percent(hosts):.2f}\n"
        "reserve_memory_mb = 256\nreserve_disk_mb = 256\ncpu_overcommit = 8.0\n"
        # The network is one of the laboratory's own.
        f'[agent]\nlisten = "{host.address}:8080"\ninsecure = true\n'
    )


def _reserve_percent(hosts: tuple[HostPlan, ...]) -> float:
    """What a hypervisor keeps of the memory it sees, which is the whole machine's: see 3."""
    return 100 - 100 / (sum(host.is_hypervisor for host in hosts) + 1)
