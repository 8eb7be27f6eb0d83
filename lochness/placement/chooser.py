"""Where does a guest go, decided on a fleet at a cost that does not grow with it?

For the built-in filters in any order with `candidate_randomize` at the end, each hypervisor's verdict on a kind of
guest (its network and what it claims) is kept and renewed only for hypervisors that have changed; the guest's own order
is walked until candidates are found. Every other list of functions, guests of a group, and every refusal go the general
way of `lochness.placement.decide`.

Invariant: both ways decide the same, to the last word of the tally (tests/property/test_chooser.py).
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Final

from lochness.errors import NoCandidateError
from lochness.model.address import ip_text
from lochness.model.guest import GuestRecord
from lochness.model.resources import Resources
from lochness.placement.candidates import (
    HEARTBEAT_MISSING,
    CandidateFunction,
    Probe,
    candidate_has_resources,
    candidate_has_subnet,
    candidate_is_alive,
    candidate_is_open,
    candidate_randomize,
    candidate_suits_group,
    prime_from,
    probe_of,
    share_of,
)
from lochness.placement.decide import (
    BEST_MAX,
    SHARE_DIGITS,
    Decision,
    FunctionTally,
    Placement,
    Refused,
    Scored,
    counted,
    decide_one,
    name_of,
)
from lochness.placement.fleet import Fleet, Host, SubnetPool

KINDS_MAX: Final = 64

#: Verdicts: 0 is a candidate, each other one a reason.
_REASONS: Final = (
    "",
    HEARTBEAT_MISSING,
    "cordoned",
    "no_subnet",
    "no_free_address",
    "insufficient_memory",
    "insufficient_disk",
    "insufficient_cpu",
)
_REASONS_OF: Final[tuple[tuple[CandidateFunction, tuple[int, ...]], ...]] = (
    (candidate_is_alive, (1,)),
    (candidate_is_open, (2,)),
    (candidate_has_subnet, (3, 4)),
    (candidate_has_resources, (5, 6, 7)),
    (candidate_suits_group, ()),
    (candidate_randomize, ()),
)
#: With fewer candidates than this share of all, they are looked at one by one instead of walking past the others.
_SPARSE_SHARE: Final = 16


class _Rooms:
    """What is free on every hypervisor, and of how much, by ordinals.

    In arrays, because three hypervisors are scored for each guest: of 10,000 hosts' objects none is in the processor's
    cache, and what a score needs of one lies in twenty places.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._ids = [host.id for host in hosts]
        #: memory, disk, cpu: free; of so much in all; and how much memory a guest takes beyond its claim.
        self._columns = tuple(array("q", column) for column in zip(*map(self._row, hosts), strict=True))

    def renew(self, ordinal: int, host: Host) -> None:
        for column, value in zip(self._columns, self._row(host), strict=True):
            column[ordinal] = value

    def scored(self, ordinal: int, claim: Resources) -> Scored:
        """The host as a candidate for a guest with this claim."""
        memory, disk, cpu, total_memory, total_disk, total_cpu, overhead_mb = [
            column[ordinal] for column in self._columns
        ]
        total = Resources(memory=total_memory, disk=total_disk, cpu=total_cpu)
        share = share_of(claim, overhead_mb, Resources(memory=memory, disk=disk, cpu=cpu), total)
        return Scored(self._ids[ordinal], memory, disk, cpu, round(share, SHARE_DIGITS))

    @staticmethod
    def _row(host: Host) -> tuple[int, ...]:
        resources = host.parts.resources
        total = resources.total
        free = (host.free_memory, host.free_disk, host.free_cpu)
        return (*free, total.memory, total.disk, total.cpu, resources.guest_overhead_mb)


class _Kind:
    """Guests of one network and one claim: every hypervisor's verdict on them."""

    def __init__(self, pools: tuple[SubnetPool, ...], claim: Resources, order: Sequence[CandidateFunction]) -> None:
        self.pools = pools
        self.claim = claim
        self.order = order
        self.verdicts = bytearray()
        self.counts = [0] * len(_REASONS)
        self.candidates: set[int] = set()
        self.refused: Refused | None = None
        self._tally: tuple[FunctionTally, ...] | None = None
        self._tests = [_TESTS[function] for function in order if function in _TESTS]

    def fill(self, hosts: Sequence[Host]) -> None:
        self.verdicts = bytearray(self._verdict(host) for host in hosts)
        self.counts = [self.verdicts.count(verdict) for verdict in range(len(_REASONS))]
        self.candidates = {number for number, verdict in enumerate(self.verdicts) if not verdict}

    def renew(self, ordinal: int, host: Host) -> None:
        self.refused = None
        before, after = self.verdicts[ordinal], self._verdict(host)
        if before == after:
            return
        self.verdicts[ordinal] = after
        self.counts[before] -= 1
        self.counts[after] += 1
        self._tally = None
        if after:
            self.candidates.discard(ordinal)
        else:
            self.candidates.add(ordinal)

    def first(self, probe: Probe) -> list[int]:
        """The first candidates in the guest's order, at most BEST_MAX."""
        candidates, count = self.candidates, len(self.verdicts)
        if len(candidates) * _SPARSE_SHARE < count or len(candidates) <= BEST_MAX:
            return heapq.nsmallest(BEST_MAX, candidates, key=probe.rank)
        verdicts, ordinal = self.verdicts, probe.start
        found: list[int] = []
        while len(found) < BEST_MAX:
            if ordinal < count and not verdicts[ordinal]:
                found.append(ordinal)
            ordinal = (ordinal + probe.stride) % probe.size
        return found

    def tally(self) -> tuple[FunctionTally, ...]:
        """What each function did, given that some candidates remain."""
        if self._tally is None:
            entries, considered = [], len(self.verdicts)
            reasons_of = dict(_REASONS_OF)
            for function in self.order:
                reasons = Counter(
                    {_REASONS[each]: self.counts[each] for each in reasons_of[function] if self.counts[each]}
                )
                removed = reasons.total()
                entries.append(FunctionTally(name_of(function), considered, removed, dict(counted(reasons))))
                considered -= removed
            self._tally = tuple(entries)
        return self._tally

    def _verdict(self, host: Host) -> int:
        for test in self._tests:
            if verdict := test(self, host):
                return verdict
        return 0


def _is_alive(_: _Kind, host: Host) -> int:
    return 0 if host.parts.is_alive else 1


def _is_open(_: _Kind, host: Host) -> int:
    return 2 if host.parts.cordoned else 0


def _has_subnet(kind: _Kind, host: Host) -> int:
    verdict = 3
    for pool in kind.pools:
        if pool.template.id in host.parts.subnets:
            if pool.free > 0:
                return 0
            verdict = 4
    return verdict


def _has_resources(kind: _Kind, host: Host) -> int:
    claim = kind.claim
    if claim.memory + host.parts.resources.guest_overhead_mb > host.free_memory:
        return 5
    if claim.disk > host.free_disk:
        return 6
    return 7 if claim.cpu > host.free_cpu else 0


_TESTS: Final = {
    candidate_is_alive: _is_alive,
    candidate_is_open: _is_open,
    candidate_has_subnet: _has_subnet,
    candidate_has_resources: _has_resources,
}


class Chooser:
    """Decides on `fleet`, guest after guest; who wants a decision to count calls `fleet.hold`."""

    def __init__(self, fleet: Fleet, functions: Sequence[CandidateFunction], *, domain: str = "") -> None:
        self.fleet = fleet
        self.functions = tuple(functions)
        self.domain = domain
        self._is_quick = is_quick(self.functions)
        self._kinds: dict[tuple[str, Resources], _Kind] = {}
        self._shape = -1
        self._hosts: list[Host] = []
        self._ordinals: dict[str, int] = {}
        self._size = 3
        self._rooms = _Rooms(())

    def choose(self, guest: GuestRecord) -> Decision:
        """Where the guest goes, or why nowhere."""
        kind = self._kind_of(guest)
        if kind is None:
            return self._slowly(guest)
        if not kind.candidates:
            if kind.refused is None:
                decision = self._slowly(guest)
                if isinstance(decision, Placement):  # cannot be, by the invariant; the general way decides
                    return decision
                kind.refused = decision
            return Refused(guest, NoCandidateError.reason, kind.refused.message, kind.refused.tally)
        chosen = kind.first(probe_of(guest.id, self._size))
        host = self._hosts[chosen[0]]
        for pool in kind.pools:
            bridge = host.parts.subnets.get(pool.template.id)
            if bridge is not None and (number := pool.first_free()) is not None:
                return Placement(
                    guest=guest,
                    hypervisor=host.id,
                    subnet=pool.template.id,
                    bridge=bridge,
                    ip=ip_text(number, pool.template.version),
                    claim=kind.claim,
                    tally=kind.tally(),
                    best=tuple([self._rooms.scored(ordinal, kind.claim) for ordinal in chosen]),
                )
        return self._slowly(guest)

    def _slowly(self, guest: GuestRecord) -> Decision:
        return decide_one(self.fleet.view(), guest, self.functions, domain=self.domain)

    def _kind_of(self, guest: GuestRecord) -> _Kind | None:
        """What is kept of guests like this one, up to date; None when the general way is to decide."""
        flavor = self.fleet.flavors.get(guest.flavor)
        linked = self.fleet.links.get(guest.network)
        if not self._is_quick or flavor is None or linked is None or guest.group:
            return None
        self._catch_up()
        if not self._hosts:
            return None
        claim = flavor.resources
        kind = self._kinds.get((guest.network, claim))
        if kind is None:
            pools = tuple(self.fleet.pools[id] for id in sorted(linked) if id in self.fleet.pools)
            kind = _Kind(pools, claim, self.functions)
            kind.fill(self._hosts)
            if len(self._kinds) >= KINDS_MAX:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[guest.network, claim] = kind
        return kind

    def _catch_up(self) -> None:
        fleet = self.fleet
        if self._shape != fleet.shape or fleet.usable() is not self._hosts:
            self._shape = fleet.shape
            if fleet.usable() is not self._hosts:
                self._hosts = fleet.usable()
                self._ordinals = {host.id: number for number, host in enumerate(self._hosts)}
                self._size = prime_from(len(self._hosts))
                self._rooms = _Rooms(self._hosts)
            self._kinds.clear()
        for id in fleet.changed:
            ordinal = self._ordinals.get(id)
            if ordinal is not None:
                self._rooms.renew(ordinal, self._hosts[ordinal])
                for kind in self._kinds.values():
                    kind.renew(ordinal, self._hosts[ordinal])
        fleet.changed.clear()


def is_quick(functions: Sequence[CandidateFunction]) -> bool:
    """Whether verdicts can be kept: built-in filters, each once, the subnet's among them, and the random order last."""
    known = [function for function, _ in _REASONS_OF]
    return (
        len(set(functions)) == len(functions)
        and all(function in known for function in functions)
        and functions[-1:] == (candidate_randomize,)
        and candidate_has_subnet in functions
    )
