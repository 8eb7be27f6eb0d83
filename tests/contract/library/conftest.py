"""A context on each kind of store, with the key space empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lochness import keys
from lochness.context import Context
from lochness.entities.catalog import Flavor, Network
from lochness.entities.guest import Guest
from lochness.entities.hypervisor import Hypervisor
from lochness.entities.subnet import Subnet
from lochness.model.resources import Resources
from lochness.store.etcd import EtcdStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import DeletePrefix, Prefix, Store
from lochness_lab.etcd import EtcdServer


@pytest.fixture(scope="module")
def library_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd whose whole key space belongs to these tests."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(params=["memory", "etcd"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        with MemoryStore() as memory:
            yield memory
        return
    etcd = request.getfixturevalue("library_etcd")
    with EtcdStore([etcd.url]) as store:
        store.commit((), (DeletePrefix(keys.ROOT),))
        yield store


@pytest.fixture
def context(store: Store) -> Context:
    return Context(store)


@dataclass
class Scene:
    """A small cluster: one hypervisor (1 GiB, 4 CPUs) with one subnet of 3 addresses, a network, a flavor of 256 MB."""

    context: Context
    flavor: Flavor
    network: Network
    subnet: Subnet
    hypervisor: Hypervisor

    def new_guest(self, **changes: str) -> Guest:
        guest = self.context.new_guest()
        guest.flavor, guest.network = self.flavor.id, self.network.id
        for name, value in changes.items():
            setattr(guest, name, value)
        guest.save()
        return guest

    def all_keys(self) -> set[str]:
        return {item.key for item in self.context.store.read(Prefix(keys.ROOT, keys_only=True)).ranges[0]}


@pytest.fixture
def scene(context: Context) -> Scene:
    image = context.new_image()
    image.source = "https://images.example.org/debian.qcow2"
    image.save()
    flavor = context.new_flavor()
    flavor.image, flavor.memory, flavor.disk, flavor.cpu = image.id, 256, 1024, 1
    flavor.save()
    network = context.new_network()
    network.save()
    subnet = context.new_subnet()
    subnet.cidr, subnet.gateway, subnet.start, subnet.end = "10.0.0.0/24", "10.0.0.1", "10.0.0.10", "10.0.0.12"
    subnet.save()
    network.add_subnet(subnet)
    hypervisor = context.new_hypervisor()
    hypervisor.ip = "192.0.2.7"
    hypervisor.total_resources = hypervisor.available_resources = Resources(memory=1024, disk=100_000, cpu=4)
    hypervisor.save()
    hypervisor.add_subnet(subnet, "br0")
    return Scene(context, flavor, network, subnet, hypervisor)
