"""Which address of a subnet is free? Found by looking at few keys, however large the range is.

A small range is read whole. In a large one addresses are drawn at random and only their keys are read: a /8 or an IPv6
/64 costs what a /24 costs. Drawing fails only in a range that is almost full; then it is read whole after all.

Not guaranteed: that the address is still free at the commit. The compare on its key says.
"""

from __future__ import annotations

import random
from typing import Final

from lochness import keys
from lochness.model.address import ip_number
from lochness.model.subnet import SubnetRecord
from lochness.placement.cluster import SubnetView, subnet_view
from lochness.store.protocol import Key, Prefix, Store

#: Ranges up to this size are read whole: about as many bytes as one round of drawing.
SMALL_RANGE: Final = 1024
#: How many addresses each round draws: few at first, as most ranges are far from full, then as many as etcd reads in
#: one transaction, for about as long as reading a /16 whole would take. In a range that is 99 % full all of them
#: together find none in 0.99 ** 1456, one case in two million.
ROUNDS: Final = (16, *[120] * 12)


def view_with_free_addresses(store: Store, record: SubnetRecord, *, revision: int = 0) -> SubnetView:
    """The subnet with its used addresses, or, for a large range, with some free ones drawn at random (`offered`).

    `revision` pins the reading (0: now). Raises UnavailableError.
    """
    empty = subnet_view(record, ())
    if empty.size > SMALL_RANGE:
        for count in ROUNDS:
            free = _draw(store, record, empty, count, revision)
            if free:
                return subnet_view(record, (), offered=free)
    return read_whole(store, record, revision=revision)


def read_whole(store: Store, record: SubnetRecord, *, revision: int = 0) -> SubnetView:
    """The subnet with all its used addresses, by one range read."""
    items = store.read(Prefix(keys.subnet_addresses(record.id), keys_only=True), revision=revision).ranges[0]
    return subnet_view(record, (ip_number(keys.last_part(item.key)) for item in items))


def _draw(store: Store, record: SubnetRecord, empty: SubnetView, count: int, revision: int) -> tuple[int, ...]:
    drawn = {random.randint(empty.first, empty.last) for _ in range(count)} - empty.reserved
    wanted = {keys.subnet_address(record.id, str(empty.address(number))): number for number in drawn}
    reading = store.read(*(Key(key) for key in wanted), revision=revision)
    used = {items[0].key for items in reading.ranges if items}
    return tuple(number for key, number in wanted.items() if key not in used)
