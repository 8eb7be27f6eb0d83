"""The picture of guests and hypervisors that is kept change by change is the picture of a reading of the same keys."""

from __future__ import annotations

import json
import random

import pytest

from lochness import keys
from lochness.model.guest import GuestRecord, GuestStatus, PowerRecord
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.store.protocol import Change, KeyValue
from lochness_controller.api.picture import Picture

#: Several begin alike, and one is no UUID: whatever somebody wrote is taken.
GUESTS = [f"{number:02x}000000-0000-4000-8000-{number % 3:012x}" for number in range(12)] + [
    f"00000000-0000-4000-8000-{number:012x}" for number in range(1, 6)
]
HYPERVISORS = [f"{number:02x}000000-0000-4000-8000-000000000000" for number in range(3)]


def any_change(draw: random.Random) -> tuple[str, bytes | None]:
    guest, hypervisor = draw.choice(GUESTS), draw.choice(HYPERVISORS)
    record = GuestRecord(id=guest, hypervisor=draw.choice([*HYPERVISORS, ""]), metadata={"n": str(draw.random())})
    status = GuestStatus(state="running", hypervisor=hypervisor)
    key, value = draw.choice(
        [
            (keys.guest(guest), record.to_json()),
            (keys.guest_power(guest), PowerRecord(desired=draw.choice(["running", "stopped"])).to_json()),
            (keys.guest_status(guest), status.to_json()),
            (keys.hypervisor(hypervisor), HypervisorRecord(id=hypervisor, ip="10.0.0.1").to_json()),
            (keys.hypervisor_heartbeat(hypervisor), HeartbeatRecord(host="h", since="2026-01-01T00:00:00Z").to_json()),
            (keys.guest("x"), b"not JSON"),
        ]
    )
    return key, draw.choice([value, value, None])


@pytest.mark.parametrize("seed", range(20))
def test_kept_change_by_change_it_is_the_same_as_read_at_once(seed):
    draw = random.Random(seed)
    kept, known = Picture(), dict[str, KeyValue]()
    for revision in range(1, 200):
        key, value = any_change(draw)
        if value is None:
            known.pop(key, None)
        else:
            known[key] = KeyValue(key, value, revision, revision)
        kept.apply([Change(key, value, revision, revision)], revision)
        if draw.random() < 0.3:
            read = Picture(revision, known.values())
            assert kept.guests() == read.guests()
            assert kept.hypervisors() == read.hypervisors()
            assert kept.each_guest() == read.each_guest()
            assert [json.loads(record) for _, record in kept.each_guest()] == json.loads(kept.guests())
            ids = [id for id, _ in kept.each_guest()]
            assert ids == sorted(ids)


def test_nothing_at_all_is_an_empty_list():
    assert Picture().guests() == b"[]\n"
