"""For any cluster and any history: the fleet knows what a reading tells, and the quick way decides as the general."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from lochness import keys
from lochness.candidate_plugins import CONTROLLER_CANDIDATE_FUNCTIONS
from lochness.model.address import guest_mac
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import Binding, GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.placement.candidates import DEFAULT_CANDIDATE_FUNCTIONS, CandidateFunction, candidate_spread
from lochness.placement.chooser import Chooser
from lochness.placement.cluster import CLUSTER_SELECTORS, cluster_view
from lochness.placement.decide import Decision, Placement, decide_one
from lochness.placement.fleet import Fleet
from lochness.store.protocol import Change, KeyValue

PATHS = tuple(selector.prefix for selector in CLUSTER_SELECTORS)


def id_of(kind: str, number: int) -> str:
    return f"{kind * 8}-0000-4000-8000-{number:012d}"


HOSTS = [id_of("a", number) for number in range(5)]
SUBNETS = [id_of("b", number) for number in range(3)]
NETWORKS = [id_of("c", number) for number in range(2)]
FLAVORS = [id_of("d", number) for number in range(2)]


def guest(number: int, network: int = 0, flavor: int = 0, group: str = "") -> GuestRecord:
    id = id_of("e", number)
    metadata = {"group": group} if group else {}
    return GuestRecord(id=id, network=NETWORKS[network], flavor=FLAVORS[flavor], mac=guest_mac(id), metadata=metadata)


hosts, subnets, numbers = st.sampled_from(HOSTS), st.sampled_from(SUBNETS), st.integers(0, 30)


@st.composite
def puts(draw: st.DrawFn) -> tuple[str, bytes]:
    """One key with a value that some part of Loch Ness, or a broken hand, might write."""
    kind, host, subnet, number = draw(st.integers(0, 11)), draw(hosts), draw(subnets), draw(numbers)
    claim = (100, 300)[number % 2]
    network, flavor, index = NETWORKS[number % 2], FLAVORS[number % 2], SUBNETS.index(subnet)
    match kind:
        case 0:
            record = HypervisorRecord(id=host, metadata={"rack": f"r{number % 2}"})
            return keys.hypervisor(host), record.operator_part()
        case 1:
            return keys.hypervisor_heartbeat(host), b"{}"
        case 2:
            return keys.hypervisor_config(host, "cordoned"), b"repair"
        case 3:
            total = Resources(memory=(0, 250, 700)[number % 3], disk=1000, cpu=(2, 8)[number % 2])
            return keys.hypervisor_resources(host), ResourcesRecord(total=total, guest_overhead_mb=10).to_json()
        case 4:
            return keys.hypervisor_subnet(host, subnet), b"br0"
        case 5 | 6:
            binding = Binding(memory=claim, disk=10, cpu=1, group=("", "web")[kind - 5])
            return keys.hypervisor_guest(host, id_of("f", number)), binding.to_json()
        case 7:
            return keys.hypervisor_guest(host, id_of("f", number)), b"{broken"
        case 8:
            return keys.subnet_address(subnet, f"10.{index}.0.{number}"), b"x"
        case 9:
            start, end = f"10.{index}.0.1", f"10.{index}.0.{3 + number % 4}"
            return keys.subnet(subnet), SubnetRecord(
                id=subnet, cidr=f"10.{index}.0.0/24", start=start, end=end
            ).to_json()
        case 10:
            return (keys.network(network), b"{}") if number % 3 else (keys.network_subnet(network, subnet), b"{}")
        case _:
            return keys.flavor(flavor), FlavorRecord(id=flavor, memory=claim, cpu=1).to_json()


class World:
    """The keys as a store would have them, and a fleet that follows."""

    def __init__(self, functions: tuple[CandidateFunction, ...]) -> None:
        self.items: dict[str, KeyValue] = {}
        self.revision = 0
        self.fleet = Fleet()
        self.chooser = Chooser(self.fleet, functions, domain="rack")

    def apply(self, changes: Iterable[tuple[str, bytes | None]]) -> None:
        """One transaction, seen by the fleet."""
        self.revision += 1
        for key, value in changes:
            if value is None:
                self.items.pop(key, None)
            else:
                self.items[key] = KeyValue(key, value, self.revision, self.revision)
            path = next(path for path in PATHS if key.startswith(path))
            self.fleet.take(path, [Change(key, value, self.revision)], self.revision)

    def read(self, prefix: str) -> list[KeyValue]:
        return [item for key, item in sorted(self.items.items()) if key.startswith(prefix)]

    def read_anew(self) -> None:
        for path in PATHS:
            self.fleet.read(path, self.read(path), self.revision)

    def reference(self, guest: GuestRecord) -> Decision:
        view = cluster_view(self.revision, [self.read(path) for path in PATHS])
        return decide_one(view, guest, self.chooser.functions, domain="rack")

    def written(self, placement: Placement) -> list[tuple[str, bytes | None]]:
        claim = placement.claim
        binding = Binding(memory=claim.memory, disk=claim.disk, cpu=claim.cpu, group=placement.guest.group)
        return [
            (keys.hypervisor_guest(placement.hypervisor, placement.guest.id), binding.to_json()),
            (keys.subnet_address(placement.subnet, placement.ip), b"x"),
        ]


@settings(max_examples=50, deadline=None)
@given(
    st.data(),
    st.sampled_from(
        (
            DEFAULT_CANDIDATE_FUNCTIONS,
            CONTROLLER_CANDIDATE_FUNCTIONS,
            (*DEFAULT_CANDIDATE_FUNCTIONS[:3], candidate_spread),
        )
    ),
)
def test_the_quick_way_decides_as_the_general_one_after_any_history(data, functions):
    world = World(functions)
    for host in HOSTS:
        total = Resources(memory=700, disk=1000, cpu=8)
        world.apply([
            (keys.hypervisor(host), HypervisorRecord(id=host).operator_part()),
            (keys.hypervisor_heartbeat(host), b"{}"),
            (keys.hypervisor_resources(host), ResourcesRecord(total=total).to_json()),
            (keys.hypervisor_subnet(host, SUBNETS[0]), b"br0"),
        ])  # fmt: skip
    for number in range(2):
        world.apply([(keys.flavor(FLAVORS[number]), FlavorRecord(id=FLAVORS[number], memory=100, cpu=1).to_json())])
        world.apply(
            [(keys.network(NETWORKS[number]), b"{}"), (keys.network_subnet(NETWORKS[number], SUBNETS[0]), b"{}")]
        )
    record = SubnetRecord(id=SUBNETS[0], cidr="10.0.0.0/24", start="10.0.0.1", end="10.0.0.20")
    world.apply([(keys.subnet(SUBNETS[0]), record.to_json())])
    for number in range(data.draw(st.integers(1, 15))):
        step = data.draw(st.sampled_from(("put", "delete", "place", "place", "place back", "read", "read one")))
        if step == "put":
            world.apply([data.draw(puts())])
        elif step == "delete" and world.items:
            world.apply([(data.draw(st.sampled_from(sorted(world.items))), None)])
        elif step == "read":
            world.read_anew()
        elif step == "read one":
            prefix = keys.hypervisor_prefix(data.draw(hosts))
            world.fleet.read(prefix, world.read(prefix), world.revision)
        like = data.draw(st.integers(0, 7))
        wanted = guest(number, like % 2, like // 2 % 2, ("", "web")[like // 4])
        decision = world.chooser.choose(wanted)
        assert decision == world.reference(wanted)
        if isinstance(decision, Placement) and step.startswith("place"):
            world.fleet.hold(decision)
            if step == "place back":
                world.fleet.give_back(decision)
            else:
                if data.draw(st.booleans()):
                    world.read_anew()  # older than what is held
                before = world.revision
                world.apply(world.written(decision))
                world.fleet.settle(decision, before + 1)
                assert world.fleet.bindings_known(decision.hypervisor) == before + 1


def test_an_older_reading_and_older_events_take_nothing_away():
    world = World(DEFAULT_CANDIDATE_FUNCTIONS)
    host, subnet = HOSTS[0], SUBNETS[0]
    world.apply([
        (keys.hypervisor(host), HypervisorRecord(id=host).operator_part()),
        (keys.hypervisor_heartbeat(host), b"{}"),
        (keys.hypervisor_resources(host), ResourcesRecord(total=Resources(memory=100, disk=9, cpu=9)).to_json()),
        (keys.hypervisor_subnet(host, subnet), b"br0"),
        (keys.flavor(FLAVORS[0]), FlavorRecord(id=FLAVORS[0], memory=100, cpu=1).to_json()),
        (keys.network(NETWORKS[0]), b"{}"),
        (keys.network_subnet(NETWORKS[0], subnet), b"{}"),
        (keys.subnet(subnet), SubnetRecord(id=subnet, cidr="10.0.0.0/24", start="10.0.0.1", end="10.0.0.9").to_json()),
    ])  # fmt: skip
    placement = world.chooser.choose(guest(1))
    assert isinstance(placement, Placement)
    old = {path: world.read(path) for path in PATHS}
    world.fleet.hold(placement)
    world.fleet.settle(placement, 7)
    for path in PATHS:
        world.fleet.read(path, old[path], 5)  # read before our commit, taken over after it
    address, binding = keys.subnet_address(subnet, placement.ip), keys.hypervisor_guest(host, placement.guest.id)
    world.fleet.take(keys.SUBNET_PATH, [Change(address, None, 6)], 6)
    world.fleet.take(keys.HYPERVISOR_PATH, [Change(binding, None, 6)], 6)
    assert not isinstance(world.chooser.choose(guest(2)), Placement)
    world.fleet.take(keys.HYPERVISOR_PATH, [Change(binding, None, 8)], 8)
    again = world.chooser.choose(guest(2))
    assert isinstance(again, Placement)
    assert again.ip != placement.ip
