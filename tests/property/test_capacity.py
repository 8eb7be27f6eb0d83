"""Is what a hypervisor offers never negative, never more than it has, and never wrapped, whatever the figures?"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lochness.capacity import Host, Policy, UnboundUse, compute
from lochness.model.resources import HugePages, NumaCell, Resources, ResourcesRecord

# What a machine, a configuration or a domain's XML can say, and far beyond.
amounts = st.one_of(st.integers(0, 1 << 22), st.integers(0, 1 << 48))
# Few, so that guests and folders meet.
names = st.sampled_from("abcdef")
percents = st.floats(0, 99.9)
pages = st.builds(HugePages, size_kb=st.sampled_from([2048, 1 << 20]), total=amounts, free=amounts)
hosts = st.builds(
    Host,
    memory_mb=amounts,
    cpus=st.integers(1, 1 << 16),
    disk_free_mb=amounts,
    guest_disks_mb=st.dictionaries(names, amounts, max_size=4),
    cells=st.lists(st.builds(NumaCell, huge_pages=st.lists(pages, max_size=2).map(tuple)), max_size=2).map(tuple),
)
unbound = st.builds(UnboundUse, domains=st.integers(0, 1000), memory_mb=amounts, vcpus=st.integers(0, 1 << 20))
policies = st.builds(
    Policy,
    reserve_memory_mb=amounts,
    reserve_disk_mb=amounts,
    reserve_cpus=st.integers(0, 1 << 20),
    cpu_overcommit=st.floats(0.01, 1000),
    guest_overhead_mb=st.integers(0, 1 << 20),
    reserve_memory_percent=percents,
    reserve_disk_percent=percents,
    reserve_cpus_percent=percents,
)
resources = st.builds(Resources, memory=amounts, disk=amounts, cpu=st.integers(0, 1 << 20))
claims = st.dictionaries(names, resources, max_size=6)


@given(hosts, unbound, claims, policies)
def test_what_is_offered_is_never_negative_and_never_more_than_there_is(host, unbound, claims, policy):
    record = compute(host, unbound, claims, policy)
    for name in ("memory", "disk", "cpu"):
        assert 0 <= getattr(record.available, name) <= getattr(record.total, name)
    assert record.total.memory <= host.memory_mb
    assert record.total.disk <= host.disk_free_mb + sum(host.guest_disks_mb.values())
    assert record.total.cpu <= host.cpus * policy.cpu_overcommit


@given(hosts, unbound, claims, policies)
def test_what_is_written_reads_as_it_was(host, unbound, claims, policy):
    record = compute(host, unbound, claims, policy)
    assert ResourcesRecord.from_json(record.to_json()) == record


@given(hosts, unbound, claims, policies, resources, st.integers(0, 1 << 22))
def test_one_guest_more_one_domain_more_or_a_larger_reserve_never_offers_more(host, unbound, claims, policy, more, mb):
    before = compute(host, unbound, claims, policy).available
    others = (
        compute(host, unbound, {**claims, "one more guest": more}, policy),
        compute(host, UnboundUse(unbound.domains + 1, unbound.memory_mb + mb, unbound.vcpus + 1), claims, policy),
        compute(host, unbound, claims, replace(policy, reserve_memory_mb=policy.reserve_memory_mb + mb)),
    )
    for after in others:
        assert after.available.memory <= before.memory
        assert after.available.disk <= before.disk
        assert after.available.cpu <= before.cpu
