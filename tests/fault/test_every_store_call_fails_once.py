"""R2 at library level: every store call of every operation fails once, before and after it took effect.

After each single failure the store is checked as it lies there, then the caller does what the errors ask for (re-read,
try again) and reaches the goal; the store is clean both times. The number of points tried is printed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from lochness import keys
from lochness.capacity import Policy
from lochness.context import Context
from lochness.entities.guest import Guest
from lochness.entities.hypervisor import Hypervisor
from lochness.entities.subnet import Subnet
from lochness.errors import AmbiguousWriteError, LochnessError, NotFoundError, UnavailableError
from lochness.identity import set_hypervisor_id
from lochness.invariants import check
from lochness.model.resources import Resources
from lochness.store.faults import FaultyStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Prefix

MAX_TRIES = 3


@dataclass
class World:
    """A cluster in memory whose store fails on demand; `ids` names what the operations are about."""

    store: FaultyStore = field(default_factory=lambda: FaultyStore(MemoryStore()))
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        context = self.context
        image, flavor, network = context.new_image(), context.new_flavor(), context.new_network()
        image.source = "https://images.example.org/x"
        flavor.image, flavor.memory, flavor.cpu = image.id, 64, 1
        vlan, group, host, bare = (
            context.new_vlan(),
            context.new_vlangroup(),
            context.new_hypervisor(),
            context.new_hypervisor(),
        )
        host.total_resources = Resources(memory=1024, disk=1024, cpu=8)
        linked, loose = context.new_subnet(), context.new_subnet()
        for number, subnet in enumerate((linked, loose)):
            subnet.cidr, subnet.start, subnet.end = f"10.0.{number}.0/24", f"10.0.{number}.5", f"10.0.{number}.9"
        other = context.new_vlangroup()
        for record in (image, flavor, network, vlan, group, other, host, bare, linked, loose):
            record.save()
        network.add_subnet(linked)
        host.add_subnet(linked, "br0")
        other.add_vlan(vlan)
        placed, waiting = context.new_guest(), context.new_guest()
        for guest in (placed, waiting):
            guest.flavor, guest.network = flavor.id, network.id
            guest.save()
        host.add_guest(placed)
        self.ids = {
            "network": network.id, "linked": linked.id, "loose": loose.id, "host": host.id, "bare": bare.id,
            "placed": placed.id, "waiting": waiting.id, "group": group.id, "other": other.id,
        }  # fmt: skip

    @property
    def context(self) -> Context:
        return Context(self.store)

    @property
    def host(self) -> Hypervisor:
        return self.context.hypervisor(self.ids["host"])

    def subnet(self, name: str) -> Subnet:
        return self.context.subnet(self.ids[name])

    def guest(self, name: str) -> Guest:
        return self.context.guest(self.ids[name])

    def violations(self) -> tuple[object, ...]:
        return check(self.store.read(Prefix(keys.ROOT)).ranges[0])


def exists(fetch: Callable[[], object]) -> bool:
    try:
        fetch()
    except NotFoundError:
        return False
    return True


@dataclass(frozen=True)
class Case:
    """An operation as a caller writes it, reading what it needs; and whether its goal is reached."""

    name: str
    run: Callable[[World], object]
    is_reached: Callable[[World], bool]


def rename_guest(world: World) -> None:
    guest = world.guest("placed")
    guest.metadata = {"name": "web"}
    guest.save()


def report(world: World) -> None:
    """What a host's own script does: beat, and write its resources."""
    set_hypervisor_id(world.ids["host"])
    host = world.host
    host.heartbeat(30)
    host.update_resources(Policy(reserve_memory_mb=0, reserve_disk_mb=0))


CASES = [
    Case("add_guest", lambda w: w.host.add_guest(w.guest("waiting")), lambda w: w.ids["waiting"] in w.host.guests()),
    Case("remove_guest", lambda w: w.host.remove_guest(w.guest("placed")), lambda w: w.host.guests() == []),
    Case("destroy guest", lambda w: w.guest("placed").destroy(), lambda w: not exists(lambda: w.guest("placed"))),
    Case(
        "map a subnet",
        lambda w: w.host.add_subnet(w.subnet("loose"), "br1"),
        lambda w: w.host.subnets().get(w.ids["loose"]) == "br1",
    ),
    Case(
        "unmap a subnet",
        lambda w: w.host.remove_subnet(w.subnet("linked")),
        lambda w: w.ids["linked"] not in w.host.subnets(),
    ),
    Case(
        "link a subnet",
        lambda w: w.context.network(w.ids["network"]).add_subnet(w.subnet("loose")),
        lambda w: w.subnet("loose").network == w.ids["network"],
    ),
    Case(
        "unlink a subnet",
        lambda w: w.context.network(w.ids["network"]).remove_subnet(w.subnet("linked")),
        lambda w: w.context.network(w.ids["network"]).subnets() == [],
    ),
    Case(
        "delete a subnet",
        lambda w: w.subnet("loose").delete(),
        lambda w: not exists(lambda: w.subnet("loose")),
    ),
    Case(
        "release an address",
        lambda w: w.subnet("linked").release_address("10.0.0.9"),
        lambda w: "10.0.0.9" not in w.subnet("linked").addresses(),
    ),
    Case(
        "add a vlan",
        lambda w: w.context.vlangroup(w.ids["group"]).add_vlan(w.context.vlan(1)),
        lambda w: w.ids["group"] in w.context.vlan(1).vlangroups(),
    ),
    Case(
        "remove a vlan",
        lambda w: w.context.vlangroup(w.ids["other"]).remove_vlan(w.context.vlan(1)),
        lambda w: w.context.vlan(1).vlangroups() == [],
    ),
    Case(
        "set a vlan's groups",
        lambda w: w.context.vlan(1).set_vlangroups([w.ids["group"]]),
        lambda w: w.context.vlan(1).vlangroups() == [w.ids["group"]],
    ),
    Case("destroy a vlan", lambda w: w.context.vlan(1).destroy(), lambda w: not exists(lambda: w.context.vlan(1))),
    Case(
        "destroy a vlan group",
        lambda w: w.context.vlangroup(w.ids["other"]).destroy(),
        lambda w: not exists(lambda: w.context.vlangroup(w.ids["other"])),
    ),
    Case(
        "destroy a hypervisor",
        lambda w: w.context.hypervisor(w.ids["bare"]).destroy(),
        lambda w: not exists(lambda: w.context.hypervisor(w.ids["bare"])),
    ),
    Case(
        "save a record",
        rename_guest,
        lambda w: w.guest("placed").metadata == {"name": "web"},
    ),
    Case(
        "register and report",
        report,
        lambda w: w.host.is_alive() and w.host.available_resources != w.host.total_resources,
    ),
    Case(
        "set configs",
        lambda w: w.host.set_configs({"a": "1", "b": "2"}),
        lambda w: w.host.config == {"a": "1", "b": "2"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_single_failure_breaks_a_promise_or_the_operation(case: Case, capsys: pytest.CaptureFixture[str]):
    trial = World()
    before = len(trial.store.calls)
    case.run(trial)
    calls = trial.store.calls[before:]
    assert case.is_reached(trial)
    assert calls, "an operation that makes no call tests nothing"
    tried = 0
    for number, name in enumerate(calls, 1):
        errors: list[LochnessError] = [UnavailableError("planted")]
        if name == "commit":
            errors.append(AmbiguousWriteError("planted"))
        for error in errors:
            moments = ("before",) if isinstance(error, UnavailableError) else ("before", "after")
            for moment in moments:
                assert_recovers(case, number, error, moment)
                tried += 1
    with capsys.disabled():
        print(f"\nR2 {case.name}: points={tried} violations=0", end="")


def assert_recovers(case: Case, number: int, error: LochnessError, moment) -> None:
    world = World()
    world.store.fail(number, error, moment=moment)
    for _ in range(MAX_TRIES):
        try:
            case.run(world)
        except (UnavailableError, AmbiguousWriteError):
            assert world.violations() == (), f"call {number} failed {moment} its effect"
        except NotFoundError:
            pass  # the first try took effect: what was to go is gone
        if case.is_reached(world):
            break
    assert case.is_reached(world), f"call {number} failed {moment} its effect"
    assert world.violations() == (), f"call {number} failed {moment} its effect"


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_reservation_gives_one_address_whatever_fails(call, moment):
    world = World()
    subnet, guest_id = world.subnet("loose"), world.ids["waiting"]
    error = AmbiguousWriteError("planted") if call == 2 else UnavailableError("planted")
    world.store.fail(call, error, moment=moment)
    for _ in range(MAX_TRIES):
        with contextlib.suppress(UnavailableError, AmbiguousWriteError):
            subnet.reserve_address(guest_id)
        if guest_id in subnet.addresses().values():  # the re-reading that the errors ask for
            break
    assert list(subnet.addresses().values()) == [guest_id]


def test_a_reservation_whose_answer_was_lost_is_found_again():
    world = World()
    subnet, guest_id = world.subnet("loose"), world.ids["waiting"]
    world.store.fail(2, AmbiguousWriteError("planted"), moment="after")  # the read, then the commit
    assert subnet.reserve_address(guest_id) == "10.0.1.5"
    assert subnet.addresses() == {"10.0.1.5": guest_id}
