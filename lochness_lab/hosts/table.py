"""What does `lochness-lab status` tell of a laboratory's hosts?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from lochness.errors import LochnessError
from lochness_lab.hosts.host import Host
from lochness_lab.hosts.laboratory import CONTROLLER, UNITS, Laboratory


def describe(lab: Laboratory) -> Iterator[tuple[str, ...]]:
    """One row a host: name, address, power, network, etcd, units, guests. The first row is the heading."""
    yield ("HOST", "ADDRESS", "POWER", "NETWORK", "ETCD", "LOCH NESS", "GUESTS")
    isolated = lab.isolated()
    leader = ""
    with contextlib.suppress(LochnessError):
        leader = lab.etcd_leader().name
    with ThreadPoolExecutor(max_workers=8) as threads:
        yield from threads.map(lambda host: _row(host, isolated, leader), lab.hosts)


def _row(host: Host, isolated: dict[str, str], leader: str) -> tuple[str, ...]:
    member = "" if not host.plan.has_etcd else "leader" if host.name == leader else "member"
    network = f"cut off ({isolated[host.name]})" if host.name in isolated else "yes"
    if not host.leader:
        return (host.name, host.plan.address, "off", network, member, "", "")
    units = UNITS if host.plan.is_hypervisor else (CONTROLLER,)
    states = host.run("systemctl", "is-active", *units, is_checked=False).stdout.split()
    ill = [f"{unit.removeprefix('lochness-')} {state}" for unit, state in zip(units, states, strict=False)]
    health = ", ".join(text for text, state in zip(ill, states, strict=False) if state != "active") or "active"
    guests = ""
    if host.plan.is_hypervisor:
        with contextlib.suppress(LochnessError):
            domains = host.domains()
            guests = f"{sum(state == 'running' for state in domains.values())} of {len(domains)} run"
    return (host.name, host.plan.address, "on", network, member, health, guests)
