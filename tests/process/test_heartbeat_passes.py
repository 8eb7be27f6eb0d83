"""The heartbeat's beats one by one, with others at work on the same key between its reading and its writing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from lochness import keys
from lochness.errors import ConfigurationError
from lochness.identity import new_id
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Delete, Key, KeyValue, Put
from lochness_node.heartbeat.shell import Heartbeat
from lochness_node.settings import HeartbeatSettings
from tests.process.busy_store import BusyStore

HV = new_id()
KEY = keys.hypervisor_heartbeat(HV)
THEIRS = HeartbeatRecord(host="there", machine="m2", pid=9, ttl_s=20).to_json()


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.memory = MemoryStore(clock=self.monotonic_s)
        self.others = BusyStore(self.memory)
        settings = HeartbeatSettings(id=HV)
        self.daemon = Heartbeat(settings, self.others.store, clock=self, host="here", machine="m1")
        self.memory.commit([], [Put(keys.hypervisor(HV), HypervisorRecord(id=HV).operator_part())])

    def monotonic_s(self) -> float:
        return self.now_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    @property
    def key(self) -> KeyValue | None:
        return self.memory.read(Key(KEY)).one()

    @property
    def host(self) -> str:
        key = self.key
        return HeartbeatRecord.from_json(key.value).host if key else ""


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.memory.close()


def test_a_machine_that_was_faster_is_not_written_over(world):
    world.others.meanwhile(1, Put(KEY, THEIRS, world.memory.grant_lease(20)))
    world.daemon.run_pass()
    assert world.host == "there"
    world.daemon.run_pass()
    assert world.host == "there"


def test_a_machine_that_is_gone_is_replaced_when_its_lease_ends(world):
    world.memory.commit([], [Put(KEY, THEIRS, world.memory.grant_lease(20))])
    world.daemon.run_pass()
    world.now_s = 19
    world.daemon.run_pass()
    assert world.host == "there"
    world.now_s = 21
    world.daemon.run_pass()
    assert world.host == "here"


def test_a_machine_that_stays_is_refused_after_two_lifetimes(world):
    theirs = world.memory.grant_lease(20)
    world.memory.commit([], [Put(KEY, THEIRS, theirs)])
    for now_s in range(0, 41, 10):
        world.now_s = now_s
        world.memory.keep_alive(theirs)
        world.daemon.run_pass()
    world.now_s = 41
    with pytest.raises(ConfigurationError, match=r"there \(pid 9, machine id m2"):
        world.daemon.run_pass()
    assert world.host == "there"


def test_no_lease_is_left_behind_for_a_hypervisor_that_was_removed_meanwhile(world):
    world.others.meanwhile(1, Delete(keys.hypervisor(HV)))
    world.daemon.run_pass()
    assert world.key is None
    world.daemon.run_pass()
    assert world.key is None


def test_what_nobody_can_read_is_written_over(world):
    world.memory.commit([], [Put(KEY, b"nonsense")])
    world.daemon.run_pass()
    assert world.host == "here"


def test_a_lease_that_ended_is_replaced_in_the_same_beat(world):
    world.daemon.run_pass()
    world.now_s = 31
    world.daemon.run_pass()
    assert world.host == "here"
