"""What is offered and what is left, figure by figure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lochness.capacity import (
    Host,
    Policy,
    UnboundUse,
    claimed,
    claims_of,
    compute,
    total_cpus,
    total_disk_mb,
    total_memory_mb,
    unbound_use_from,
)
from lochness.errors import ValidationError
from lochness.identity import GuestID, new_id
from lochness.model.guest import Binding
from lochness.model.resources import HugePages, NumaCell, Resources
from lochness.store.protocol import KeyValue
from lochness_node.driver.protocol import Domain, DomainState, Ownership
from lochness_node.resources.unbound import unbound_use

PLAIN = Policy(reserve_memory_mb=0, reserve_disk_mb=0, reserve_cpus=0, cpu_overcommit=1.0, guest_overhead_mb=0)
POLICY = Policy(reserve_memory_mb=1000, reserve_disk_mb=500, reserve_cpus=1, cpu_overcommit=1.5, guest_overhead_mb=100)
HOST = Host(memory_mb=16000, cpus=8, disk_free_mb=90000, guest_disks_mb={"g": 10000})
CLAIMS = {"g": Resources(disk=20000)}
TINY = Host(memory_mb=10, cpus=1, disk_free_mb=1, guest_disks_mb={})


def domain(
    state: DomainState = DomainState.RUNNING, *, guest: str = "", memory_mb: int = 512, vcpus: int = 2
) -> Domain:
    id = guest or new_id()
    ownership = Ownership(GuestID(id), 1) if guest else None
    return Domain(id, id, "", state, "", memory_mb, vcpus, ownership)


def test_memory_is_the_hosts_less_reserve_and_what_others_hold():
    assert total_memory_mb(HOST, UnboundUse(), PLAIN) == 16000
    assert total_memory_mb(HOST, UnboundUse(domains=2, memory_mb=3000, vcpus=4), POLICY) == 16000 - 1000 - 3000 - 200


def test_disk_is_what_is_free_and_what_guests_have_already():
    assert total_disk_mb(HOST, CLAIMS, PLAIN) == 100000
    assert total_disk_mb(HOST, CLAIMS, POLICY) == 99500


def test_what_no_guest_has_claimed_is_no_room_for_guests():
    assert total_disk_mb(HOST, {}, PLAIN) == 90000  # g is deleted, its files are not; or they never were a guest's
    assert total_disk_mb(HOST, {"another": CLAIMS["g"]}, PLAIN) == 90000
    assert total_disk_mb(HOST, {"g": Resources(disk=4000)}, PLAIN) == 94000  # its snapshots have taken 6000 more


def test_cpus_are_overcommitted_after_the_reserve_and_rounded_down():
    assert total_cpus(HOST, UnboundUse(), PLAIN) == 8
    assert total_cpus(HOST, UnboundUse(), POLICY) == 10  # (8 - 1) x 1.5 = 10.5
    assert total_cpus(HOST, UnboundUse(domains=1, vcpus=3), POLICY) == 7


def test_each_guest_claims_its_flavor_and_qemus_own_memory():
    claims = [Resources(memory=1000, disk=5000, cpu=2), Resources(memory=500, disk=1000, cpu=1)]
    assert claimed(claims, POLICY) == Resources(memory=1700, disk=6000, cpu=3)


def test_the_record():
    record = compute(HOST, UnboundUse(1, 400, 1), {"g": Resources(memory=1000, disk=5000, cpu=2)}, POLICY)
    assert record.total == Resources(memory=14500, disk=94500, cpu=9)
    assert record.available == Resources(memory=13400, disk=89500, cpu=7)
    assert record.guest_overhead_mb == 100
    assert record.computed_from["guests"] == 1
    assert record.computed_from["host_memory_mb"] == 16000


def test_nothing_is_ever_negative():
    record = compute(TINY, UnboundUse(3, 9999, 99), {"g": Resources(memory=10**9, disk=10**9, cpu=999)}, POLICY)
    assert record.total == Resources()
    assert record.available == Resources()


def test_unbound_are_foreign_domains_and_ours_without_a_binding_while_they_are_active():
    bound, unbound = new_id(), new_id()
    domains = [
        domain(memory_mb=100, vcpus=1),
        domain(DomainState.PAUSED, memory_mb=200, vcpus=1),
        domain(DomainState.STOPPED, memory_mb=400),
        domain(DomainState.UNKNOWN, memory_mb=800),
        domain(guest=bound, memory_mb=1600),
        domain(guest=unbound, memory_mb=3200, vcpus=4),
    ]
    assert unbound_use(domains, {bound}) == UnboundUse(domains=3, memory_mb=3500, vcpus=6)


def test_the_figure_of_unbound_domains_can_be_read_back():
    use = UnboundUse(1, 400, 1)
    record = compute(HOST, use, {}, POLICY)
    assert unbound_use_from(type(record).from_json(record.to_json())) == use
    record.computed_from = {}
    assert unbound_use_from(record) is None


def test_claims_are_those_of_the_bindings():
    binding = KeyValue("lochness/hypervisors/h/guests/g", Binding(memory=1, disk=2, cpu=3).to_json(), 1, 1)
    assert claims_of([binding]) == {"g": Resources(memory=1, disk=2, cpu=3)}


def test_a_malformed_binding_is_named_not_left_out():
    with pytest.raises(ValidationError, match="guests/g: "):
        claims_of([KeyValue("lochness/hypervisors/h/guests/g", b"{", 1, 1)])


def test_a_reserve_is_the_larger_of_amount_and_share_and_rounded_up():
    shares = replace(PLAIN, reserve_memory_percent=10, reserve_disk_percent=1, reserve_cpus_percent=1)
    assert total_memory_mb(HOST, UnboundUse(), shares) == 16000 - 1600
    assert total_disk_mb(HOST, CLAIMS, shares) == 100000 - 1000
    assert total_cpus(HOST, UnboundUse(), shares) == 7, "a share of a CPU is a CPU"
    both = replace(shares, reserve_memory_mb=2000, reserve_disk_mb=10, reserve_cpus=3)
    assert total_memory_mb(HOST, UnboundUse(), both) == 14000
    assert total_disk_mb(HOST, CLAIMS, both) == 99000
    assert total_cpus(HOST, UnboundUse(), both) == 5


def test_huge_pages_are_not_offered():
    pages = (HugePages(size_kb=2048, total=512, free=512), HugePages(size_kb=1 << 20, total=2, free=0))
    host = replace(HOST, cells=(NumaCell(cell=0, huge_pages=pages), NumaCell(cell=1, huge_pages=pages)))
    assert host.huge_pages_mb == 2 * (1024 + 2048)
    assert total_memory_mb(host, UnboundUse(), PLAIN) == 16000 - 6144
    assert total_memory_mb(replace(host, memory_mb=6000), UnboundUse(), PLAIN) == 0
    assert compute(host, UnboundUse(), {}, PLAIN).numa_cells == host.cells
