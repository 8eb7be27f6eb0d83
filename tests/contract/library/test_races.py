"""What another process does between our reading and our commit is seen, on both stores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lochness import keys
from lochness.context import Context
from lochness.entities.guest import Guest
from lochness.errors import ConflictError, NoCandidateError, NotFoundError
from lochness.invariants import check
from lochness.model.resources import Resources
from lochness.store.faults import FaultyStore
from lochness.store.protocol import Prefix
from tests.contract.library.conftest import Scene


def before_our_commit(scene: Scene, meanwhile: Callable[[], object]) -> Context:
    """A context on the scene's store; just before its first commit `meanwhile` happens."""
    done: list[bool] = []

    def on_call(_: int, name: str) -> None:
        if name == "commit" and not done:
            done.append(True)
            meanwhile()

    return Context(FaultyStore(scene.context.store, on_call=on_call))


def no_promise_is_broken(scene: Scene) -> bool:
    return check(scene.context.store.read(Prefix(keys.ROOT)).ranges[0]) == ()


def guest_elsewhere(scene: Scene) -> Guest:
    """A guest that wants another network, of which the hypervisor has a subnet too: it takes room but no address of
    ours.
    """
    network, subnet = scene.context.new_network(), scene.context.new_subnet()
    subnet.cidr, subnet.start, subnet.end = "10.7.0.0/24", "10.7.0.10", "10.7.0.12"
    network.save()
    subnet.save()
    network.add_subnet(subnet)
    scene.hypervisor.add_subnet(subnet, "br1")
    return scene.new_guest(network=network.id)


def test_the_last_room_is_given_once(scene: Scene):
    scene.hypervisor.total_resources = Resources(memory=256, disk=100_000, cpu=4)
    scene.hypervisor.save()
    ours, theirs = scene.new_guest(), guest_elsewhere(scene)
    slow = before_our_commit(scene, lambda: scene.hypervisor.add_guest(theirs))
    with pytest.raises(NoCandidateError) as refused:
        slow.hypervisor(scene.hypervisor.id).add_guest(slow.guest(ours.id))
    assert "insufficient_memory: wanted 256 MB, had 0 MB" in str(refused.value)
    assert scene.hypervisor.guests() == [theirs.id]
    assert no_promise_is_broken(scene)


def test_an_address_is_given_once_across_hypervisors(scene: Scene):
    other = scene.context.new_hypervisor()
    other.total_resources = Resources(memory=1024, disk=100_000, cpu=4)
    other.save()
    other.add_subnet(scene.subnet, "br0")
    ours, theirs = scene.new_guest(), scene.new_guest()
    slow = before_our_commit(scene, lambda: other.add_guest(theirs))
    guest = slow.guest(ours.id)
    slow.hypervisor(scene.hypervisor.id).add_guest(guest)
    assert (theirs.ip, guest.ip) == ("10.0.0.10", "10.0.0.11")
    assert scene.subnet.addresses() == {"10.0.0.10": theirs.id, "10.0.0.11": ours.id}
    assert no_promise_is_broken(scene)


def test_a_reserved_address_is_passed_over(scene: Scene):
    other = scene.new_guest()
    slow = before_our_commit(scene, lambda: scene.subnet.reserve_address(other.id))
    ours = scene.new_guest()
    assert slow.subnet(scene.subnet.id).reserve_address(ours.id) == "10.0.0.11"
    assert scene.subnet.addresses() == {"10.0.0.10": other.id, "10.0.0.11": ours.id}


def test_a_mapping_that_went_away_is_not_used(scene: Scene):
    ours = scene.new_guest()
    slow = before_our_commit(scene, lambda: scene.hypervisor.remove_subnet(scene.subnet))
    with pytest.raises(NoCandidateError) as refused:
        slow.hypervisor(scene.hypervisor.id).add_guest(slow.guest(ours.id))
    assert "no_subnet" in str(refused.value)
    assert scene.hypervisor.guests() == []


def test_a_hypervisor_that_was_destroyed_meanwhile_gets_no_guest(scene: Scene):
    ours = scene.new_guest()
    slow = before_our_commit(scene, lambda: scene.context.hypervisor(scene.hypervisor.id).destroy())
    with pytest.raises(NotFoundError):
        slow.hypervisor(scene.hypervisor.id).add_guest(slow.guest(ours.id))
    assert not [key for key in scene.all_keys() if key.startswith(keys.HYPERVISOR_PATH)]
    assert no_promise_is_broken(scene)


def test_a_hypervisor_that_got_a_guest_meanwhile_is_not_destroyed(scene: Scene):
    theirs = scene.new_guest()
    slow = before_our_commit(scene, lambda: scene.hypervisor.add_guest(theirs))
    with pytest.raises(ConflictError, match="changed since it was read"):
        slow.hypervisor(scene.hypervisor.id).destroy()
    assert scene.hypervisor.guests() == [theirs.id]
    assert no_promise_is_broken(scene)


def test_a_guest_that_was_deleted_meanwhile_leaves_nothing(scene: Scene):
    ours = scene.new_guest()
    before = scene.all_keys() - {keys.guest(ours.id)}
    slow = before_our_commit(scene, lambda: scene.context.guest(ours.id).destroy())
    with pytest.raises(ConflictError, match="changed since it was read"):
        slow.hypervisor(scene.hypervisor.id).add_guest(slow.guest(ours.id))
    assert scene.all_keys() == before


def test_a_network_that_got_a_subnet_meanwhile_is_not_destroyed(scene: Scene):
    scene.network.remove_subnet(scene.subnet)
    slow = before_our_commit(scene, lambda: scene.network.add_subnet(scene.subnet))
    with pytest.raises(ConflictError, match="changed since it was read"):
        slow.network(scene.network.id).destroy()
    assert scene.network.subnets() == [scene.subnet.id]
    assert no_promise_is_broken(scene)
