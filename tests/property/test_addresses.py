"""For any subnet: what is offered lies in the range, is nobody's, and is not the network's own."""

from __future__ import annotations

import ipaddress
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from lochness.entities.addresses import SMALL_RANGE, view_with_free_addresses
from lochness.ids import new_id
from lochness.keys import subnet_address
from lochness.model.address import ip_number, ip_text, normalized_mac
from lochness.model.subnet import SubnetRecord
from lochness.placement.cluster import subnet_view
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Put

ID = "f2011319-ad59-42fb-9bad-92e261f0651c"


@st.composite
def subnets(draw: st.DrawFn) -> SubnetRecord:
    """A valid subnet of either version, from one address to a /8 or an IPv6 /64."""
    version = draw(st.sampled_from((4, 6)))
    bits, least = (32, 8) if version == 4 else (128, 64)
    prefix = draw(st.integers(least, bits))
    address = draw(st.integers(0, 2**bits - 1))
    network = ipaddress.ip_network((address, prefix), strict=False)
    first = draw(st.integers(int(network.network_address), int(network.broadcast_address)))
    last = draw(st.integers(first, int(network.broadcast_address)))
    gateway = draw(st.none() | st.integers(int(network.network_address), int(network.broadcast_address)))
    build = type(network.network_address)
    return SubnetRecord(
        id=ID,
        cidr=str(network),
        start=str(build(first)),
        end=str(build(last)),
        gateway="" if gateway is None else str(build(gateway)),
    )


@given(subnets(), st.data())
def test_what_is_offered_is_free_usable_and_in_the_range(record: SubnetRecord, data: st.DataObject):
    record.validate()
    used = frozenset(data.draw(st.sets(st.integers(int(record.first), int(record.last)), max_size=20)))
    view = subnet_view(record, used)
    offered = list(islice(view.free_addresses(), 50))
    network = record.ip_network
    for address in offered:
        assert address in network
        assert record.first <= address <= record.last  # type: ignore[operator]  # one version
        assert int(address) not in used
        assert str(address) != record.gateway
        if network.num_addresses > 2:
            assert address != network.network_address
            assert network.version == 6 or address != network.broadcast_address
    assert len(set(offered)) == len(offered)
    if view.size <= 50:
        expected = view.size - len(used - view.reserved)
        assert len(offered) == expected


@given(subnets())
def test_a_free_address_is_found_in_any_store(record: SubnetRecord):
    record.validate()
    with MemoryStore() as store:
        view = view_with_free_addresses(store, record)
        address = next(view.free_addresses(), None)
        if view.size <= 0:
            assert address is None
            return
        assert address is not None
        assert int(record.first) <= int(address) <= int(record.last)
        store.commit((), (Put(subnet_address(record.id, str(address)), new_id().encode()),))
        again = next(view_with_free_addresses(store, record).free_addresses(), None)
        assert again != address
        assert (again is None) == (view.size == 1)


def test_an_almost_full_range_is_searched_by_few_reads_and_then_whole():
    record = SubnetRecord(id=ID, cidr="10.0.0.0/16", start="10.0.0.1", end="10.0.8.0")
    assert subnet_view(record, ()).size > SMALL_RANGE
    with MemoryStore() as store:
        every = [str(address) for address in subnet_view(record, ()).free_addresses()]
        for start in range(0, len(every) - 1, 100):
            chunk = every[start : min(start + 100, len(every) - 1)]
            store.commit((), [Put(subnet_address(ID, address), b"x") for address in chunk])
        for _ in range(20):
            assert [str(address) for address in view_with_free_addresses(store, record).free_addresses()] == [every[-1]]


@given(st.binary(min_size=6, max_size=6) | st.binary(min_size=8, max_size=8), st.booleans())
def test_a_mac_means_the_same_in_all_three_notations(mac: bytes, upper: bool):
    dotted = ".".join(mac.hex()[start : start + 4] for start in range(0, 2 * len(mac), 4))
    for spelled in (mac.hex(":"), mac.hex("-"), dotted):
        assert normalized_mac(spelled.upper() if upper else spelled) == mac.hex(":")


@given(st.sampled_from((4, 6)), st.data())
def test_an_address_is_the_number_that_the_standard_library_says(version: int, data: st.DataObject):
    build = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    number = data.draw(st.integers(0, 2 ** (32 if version == 4 else 128) - 1))
    assert ip_text(number, version) == str(build(number))
    assert ip_number(str(build(number))) == number
