"""Hypervisors that die, return and are removed: since when is what is written, whoever is the leader."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime

from bench.fleet import Fleet
from lochness import keys
from lochness.guest_state import LostRecord
from lochness.invariants import check
from lochness.store.protocol import Key, Prefix
from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, RunningController


def lost_since(store, hypervisor: str) -> str:
    item = store.read(Key(keys.hypervisor_lost(hypervisor))).one()
    return LostRecord.from_json(item.value).since if item else ""


def test_a_hypervisor_that_dies_is_lost_since_then_until_it_is_back_or_removed(own_etcd):
    controller = RunningController(own_etcd.url)
    store = controller.store
    try:
        with Api(controller.url) as api, Fleet(store, 3, ttl_s=6) as fleet:
            first, second, third = fleet.agents
            new = api.made("/hypervisors", {"ip": "192.0.2.1"})["id"]
            before = datetime.now(UTC)
            fleet.cut(first, is_lease_over=True)
            fleet.cut(second, is_lease_over=True)
            wait_until(lambda: lost_since(store, first) and lost_since(store, second), limit_s=20, what="two marks")
            assert abs(datetime.fromisoformat(lost_since(store, first)) - before).total_seconds() < 15
            fleet.restore(first)
            wait_until(lambda: not lost_since(store, first), limit_s=20, what="the mark of the first to go")
            assert api.delete(f"/hypervisors/{second}").status_code == 200
            fleet.cut(third, is_lease_over=True)
            wait_until(lambda: lost_since(store, third), limit_s=20, what="the mark of the third")
            assert store.read(Prefix(keys.hypervisor_prefix(second))).ranges[0] == ()
            assert lost_since(store, new) == ""  # it has never reported anything
            assert check(store.read(Prefix(keys.ROOT)).ranges[0]) == ()
    finally:
        controller.stop()


def test_another_controller_goes_on_with_it(own_etcd):
    with ExitStack() as stack:
        one, other = RunningController(own_etcd.url), RunningController(own_etcd.url)
        stack.callback(other.stop)
        ending = stack.enter_context(ExitStack())
        ending.callback(one.stop)
        fleet = stack.enter_context(Fleet(other.store, 2))
        first, second = fleet.agents
        fleet.cut(first, is_lease_over=True)
        wait_until(lambda: lost_since(other.store, first), limit_s=20, what="the mark of the first")
        ending.close()
        fleet.cut(second, is_lease_over=True)
        wait_until(lambda: lost_since(other.store, second), limit_s=20, what="the mark of the second")
