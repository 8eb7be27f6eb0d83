"""The library's door: fetch, make and list the objects of one store.

    with open_store("http://127.0.0.1:2379") as store:
        context = Context(store)
        for hypervisor in context.hypervisors(): ...

Invariants:
1. Every ID is normalised on the way in; a malformed one is a ValidationError, an unknown one a NotFoundError.
2. A list is one consistent range read, not one read per object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from lochness import keys
from lochness.entities.catalog import Flavor, FWGroup, Image, Network
from lochness.entities.guest import Guest
from lochness.entities.hypervisor import Hypervisor, Reported
from lochness.entities.stored import Stored
from lochness.entities.subnet import Subnet
from lochness.entities.vlan import VLAN, VLANGroup
from lochness.errors import NotFoundError, ValidationError
from lochness.ids import new_id, parse_id
from lochness.model.address import guest_mac
from lochness.model.flavor import FlavorRecord
from lochness.model.fwgroup import FWGroupRecord
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.network import NetworkRecord
from lochness.model.subnet import SubnetRecord
from lochness.model.vlan import VLANGroupRecord, VLANRecord, parse_tag
from lochness.placement.candidates import DEFAULT_CANDIDATE_FUNCTIONS, CandidateFunction
from lochness.store.protocol import Delete, Key, KeyValue, Prefix, Put, Store

if TYPE_CHECKING:
    from lochness.agent_client import MistifyAgent

AnyStored = TypeVar("AnyStored", bound=Stored)


class Context:
    """All that the library offers on one store. Safe to share between threads; the objects it answers are not."""

    def __init__(
        self, store: Store, *, candidate_functions: Sequence[CandidateFunction] = DEFAULT_CANDIDATE_FUNCTIONS
    ) -> None:
        self.store = store
        self.candidate_functions = tuple(candidate_functions)

    def fwgroup(self, id: str) -> FWGroup:
        return self._fetch(FWGroup, id)

    def flavor(self, id: str) -> Flavor:
        return self._fetch(Flavor, id)

    def image(self, id: str) -> Image:
        return self._fetch(Image, id)

    def guest(self, id: str) -> Guest:
        return self._fetch(Guest, id)

    def hypervisor(self, id: str) -> Hypervisor:
        return Hypervisor.load(self, parse_id(id))

    def network(self, id: str) -> Network:
        return self._fetch(Network, id)

    def subnet(self, id: str) -> Subnet:
        return self._fetch(Subnet, id)

    def vlan(self, tag: int | str) -> VLAN:
        """Raises ValidationError unless `tag` is 1 to 4095, NotFoundError."""
        return self._fetch_key(VLAN, str(parse_tag(tag)))

    def vlangroup(self, id: str) -> VLANGroup:
        return self._fetch(VLANGroup, id)

    def new_fwgroup(self) -> FWGroup:
        return FWGroup.bind(self, FWGroupRecord(id=new_id()), 0)

    def new_flavor(self) -> Flavor:
        return Flavor.bind(self, FlavorRecord(id=new_id()), 0)

    def new_image(self) -> Image:
        return Image.bind(self, ImageRecord(id=new_id()), 0)

    def new_guest(self) -> Guest:
        """A blank guest with a fresh id, type kvm and the MAC that follows from its id."""
        id = new_id()
        return Guest.bind(self, GuestRecord(id=id, type="kvm", mac=guest_mac(id)), 0)

    def new_hypervisor(self) -> Hypervisor:
        return Hypervisor.bind(self, HypervisorRecord(id=new_id()), 0)

    def new_network(self) -> Network:
        return Network.bind(self, NetworkRecord(id=new_id()), 0)

    def new_subnet(self) -> Subnet:
        return Subnet.bind(self, SubnetRecord(id=new_id()), 0)

    def new_vlan(self) -> VLAN:
        """A blank VLAN with tag 1."""
        return VLAN.bind(self, VLANRecord(), 0)

    def new_vlangroup(self) -> VLANGroup:
        return VLANGroup.bind(self, VLANGroupRecord(id=new_id()), 0)

    def fwgroups(self) -> Iterator[FWGroup]:
        return self._each(FWGroup, keys.FWGROUP_PATH)

    def flavors(self) -> Iterator[Flavor]:
        return self._each(Flavor, keys.FLAVOR_PATH)

    def images(self) -> Iterator[Image]:
        return self._each(Image, keys.IMAGE_PATH)

    def guests(self) -> Iterator[Guest]:
        return self._each(Guest, keys.GUEST_PATH)

    def networks(self) -> Iterator[Network]:
        return self._each(Network, keys.NETWORK_PATH)

    def subnets(self) -> Iterator[Subnet]:
        return self._each(Subnet, keys.SUBNET_PATH)

    def vlans(self) -> Iterator[VLAN]:
        """Every VLAN, by tag."""
        return iter(sorted(self._each(VLAN, keys.VLAN_PATH), key=lambda vlan: vlan.tag))

    def vlangroups(self) -> Iterator[VLANGroup]:
        return self._each(VLANGroup, keys.VLANGROUP_PATH)

    def hypervisors(self) -> Iterator[Hypervisor]:
        """Every hypervisor, joined with its resources and config, as of one revision."""
        parts: dict[str, dict[str, KeyValue]] = defaultdict(dict)
        for item in self.store.read(Prefix(keys.HYPERVISOR_PATH)).ranges[0]:
            id, rest = keys.object_id(item.key, keys.HYPERVISOR_PATH)
            parts[id][rest] = item
        for items in parts.values():
            if "metadata" not in items:
                continue
            hypervisor = Hypervisor.from_item(self, items["metadata"])
            configs = {rest[len("config/") :]: item for rest, item in items.items() if rest.startswith("config/")}
            hypervisor.join(Reported.from_items(items.get("resources"), configs))
            yield hypervisor

    def for_each_flavor(self, f: Callable[[Flavor], object]) -> None:
        """Call `f` with each; stops at and passes on what `f` raises. So do the other `for_each_*`."""
        _for_each(self.flavors(), f)

    def for_each_fwgroup(self, f: Callable[[FWGroup], object]) -> None:
        _for_each(self.fwgroups(), f)

    def for_each_vlan(self, f: Callable[[VLAN], object]) -> None:
        _for_each(self.vlans(), f)

    def for_each_vlangroup(self, f: Callable[[VLANGroup], object]) -> None:
        _for_each(self.vlangroups(), f)

    def for_each_image(self, f: Callable[[Image], object]) -> None:
        _for_each(self.images(), f)

    def for_each_guest(self, f: Callable[[Guest], object]) -> None:
        _for_each(self.guests(), f)

    def for_each_hypervisor(self, f: Callable[[Hypervisor], object]) -> None:
        _for_each(self.hypervisors(), f)

    def for_each_network(self, f: Callable[[Network], object]) -> None:
        _for_each(self.networks(), f)

    def for_each_subnet(self, f: Callable[[Subnet], object]) -> None:
        _for_each(self.subnets(), f)

    def for_each_config(self, f: Callable[[str, str], object]) -> None:
        """Call `f` with each cluster-wide setting's key and value."""
        for item in self.store.read(Prefix(keys.CONFIG_PATH)).ranges[0]:
            f(item.key.removeprefix(keys.CONFIG_PATH), item.value.decode())

    def first_hypervisor(self, f: Callable[[Hypervisor], bool]) -> Hypervisor | None:
        """The first hypervisor for which `f` is true, else None."""
        return next((hypervisor for hypervisor in self.hypervisors() if f(hypervisor)), None)

    def get_config(self, key: str) -> str:
        """A cluster-wide setting. Raises NotFoundError when it is not set, ValidationError for an empty key."""
        item = self.store.read(Key(_config_key(key))).one()
        if item is None:
            raise NotFoundError("config", key)
        return item.value.decode()

    def set_config(self, key: str, value: str) -> None:
        """Set a cluster-wide setting; "" unsets it. Raises ValidationError for an empty key."""
        self.set_configs({key: value})

    def set_configs(self, changes: Mapping[str, str]) -> None:
        """Set several cluster-wide settings in one transaction; "" unsets one. Raises ValidationError."""
        stored = {_config_key(key): value for key, value in changes.items()}
        if stored:
            operations = [Put(key, value.encode()) if value else Delete(key) for key, value in stored.items()]
            self.store.commit((), operations)

    def new_mistify_agent(self, port: int = 0) -> MistifyAgent:
        """The agents of this cluster's hypervisors; `port` <= 0 means AGENT_PORT. Close it after use."""
        from lochness.agent_client import MistifyAgent  # an HTTP client that most users of a context never need

        return MistifyAgent(self, port)

    @staticmethod
    def is_key_not_found(error: BaseException) -> bool:
        """Whether `error` says that something does not exist."""
        return isinstance(error, NotFoundError)

    def _fetch(self, kind: type[AnyStored], id: str) -> AnyStored:
        return self._fetch_key(kind, parse_id(id))

    def _fetch_key(self, kind: type[AnyStored], identity: str) -> AnyStored:
        item = self.store.read(Key(kind.key_of(identity))).one()
        if item is None:
            raise NotFoundError(kind.KIND, identity)
        return kind.from_item(self, item)

    def _each(self, kind: type[AnyStored], path: str) -> Iterator[AnyStored]:
        for item in self.store.read(Prefix(path)).ranges[0]:
            if keys.object_id(item.key, path)[1] == "metadata":
                yield kind.from_item(self, item)


Item = TypeVar("Item")


def _for_each(items: Iterator[Item], f: Callable[[Item], object]) -> None:
    for item in items:
        f(item)


def _config_key(key: str) -> str:
    if not key.strip("/"):
        raise ValidationError("a config key must not be empty", field="key")
    return keys.config(key.strip("/"))
