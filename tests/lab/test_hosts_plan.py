"""What a laboratory of N hypervisors consists of."""

from __future__ import annotations

import tomllib
import uuid

import pytest

from lochness.errors import ConfigurationError
from lochness_lab.hosts.plan import etcd_urls, files, plan, units
from lochness_node.settings import ResourcesSettings


def test_three_hypervisors_and_a_management_host_with_three_members_of_etcd():
    hosts = plan(3)
    assert [host.name for host in hosts] == ["m1", "h1", "h2", "h3"]
    assert [host.name for host in hosts if host.has_etcd] == ["m1", "h1", "h2"]
    assert etcd_urls(hosts) == "http://10.77.0.10:2379,http://10.77.0.11:2379,http://10.77.0.12:2379"


def test_one_hypervisor_has_one_member():
    assert [host.name for host in plan(1) if host.has_etcd] == ["m1"]


@pytest.mark.parametrize("number", [0, -1, 41])
def test_a_number_without_sense_is_refused(number: int):
    with pytest.raises(ConfigurationError, match=f"1 to 40 hypervisors, not {number}"):
        plan(number)


def test_names_addresses_ids_and_macs_are_each_hosts_own():
    hosts = plan(40)
    for values in (
        [host.name for host in hosts],
        [host.address for host in hosts],
        [host.hypervisor_id for host in hosts],
        [host.mac for host in hosts],
        [files(host, hosts)["/etc/machine-id"] for host in hosts],
    ):
        assert len(set(values)) == 41
    assert all(uuid.UUID(host.hypervisor_id) for host in hosts)
    assert plan(2)[1].hypervisor_id == hosts[1].hypervisor_id


def test_configurations_can_be_read():
    hosts = plan(3)
    for host in hosts:
        found = files(host, hosts)
        name = "/etc/lochness/node.toml" if host.is_hypervisor else "/etc/lochness/controller.toml"
        assert tomllib.loads(found[name])["etcd"] == etcd_urls(hosts)
        assert ("/etc/default/etcd" in found) == host.has_etcd
        assert all(f"{other.address} {other.name}\n" in found["/etc/hosts"] for other in hosts)


def test_a_unit_is_either_wanted_or_not():
    for host in plan(3):
        wanted, unwanted = units(host)
        assert not set(wanted) & set(unwanted)
        assert ("etcd.service" in wanted) == host.has_etcd
        assert ("libvirtd.service" in wanted) == host.is_hypervisor


@pytest.mark.parametrize("number", [1, 3, 40])
def test_the_hypervisors_together_never_offer_more_memory_than_the_machine_has(number: int):
    hosts = plan(number)
    offered_percent = 0.0
    for host in hosts:
        if host.is_hypervisor:
            settings = ResourcesSettings(**tomllib.loads(files(host, hosts)["/etc/lochness/node.toml"])["resources"])
            settings.check()
            offered_percent += 100 - settings.reserve_memory_percent
    assert 0.49 <= offered_percent / 100 < 1
