"""Three members of a real etcd: a member or the leader dies or stands still, the quorum goes and comes back."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lochness import events
from lochness.errors import (
    AmbiguousWriteError,
    CompactedError,
    ConflictError,
    LeaseNotFoundError,
    LochnessError,
    UnavailableError,
)
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Change, Delete, Key, KeyUnchanged, Prefix, Put, Reading, Store, WatchBatch
from lochness.store.watching import Watching
from lochness_lab.etcd import EtcdCluster, EtcdServer
from lochness_lab.waiting import wait_until

TIMEOUT_S = 2.0
SILENCE_LIMIT_S = 2.0
#: What a deadline may be late by on a busy machine.
SLACK_S = 1.0
#: Generous: two elections of a second and a call that ran into its limit.
RECOVERY_LIMIT_S = 15.0
WRITERS = 4
COUNTERS = 2


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path / "etcd") as cluster:
        yield cluster


@pytest.fixture
def store(cluster: EtcdCluster) -> Iterator[EtcdStore]:
    with open_store(cluster) as store:
        yield store


def open_store(cluster: EtcdCluster, *without: EtcdServer) -> EtcdStore:
    urls = [member.url for member in cluster.members if member not in without]
    return EtcdStore(urls, timeout_s=TIMEOUT_S, watch_silence_limit_s=SILENCE_LIMIT_S)


def connected(cluster: EtcdCluster, store: Store) -> EtcdServer:
    """The member that `store`, the only one of this process, has its connection to."""
    store.read(Key("a"))
    remote = {
        f"http://{each.raddr.ip.removeprefix('::ffff:')}:{each.raddr.port}"
        for each in psutil.Process().net_connections("tcp")
        if each.status == psutil.CONN_ESTABLISHED
    }
    (member,) = [member for member in cluster.members if member.url in remote]
    return member


class Followed:
    """What a Watching of `prefix` delivers."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.snapshots: list[Reading] = []
        self.changes: list[Change] = []
        self.transitions: list[str] = []
        self.watching = Watching(
            store,
            prefix,
            on_snapshot=self.snapshots.append,
            on_batch=self._take,
            on_transition=lambda event, _fields: self.transitions.append(event),
        )

    def _take(self, batch: WatchBatch) -> None:
        self.changes.extend(batch.changes)

    def view(self) -> dict[str, bytes]:
        """The prefix as the last snapshot and what came after it make it."""
        if not self.snapshots:
            return {}
        reading = self.snapshots[-1]
        found = {kv.key: kv.value for kv in reading.ranges[0]}
        for change in self.changes:
            if change.mod_revision <= reading.revision:
                continue
            if change.value is None:
                found.pop(change.key, None)
            else:
                found[change.key] = change.value
        return found

    def __enter__(self) -> Followed:
        self.watching.start()
        wait_until(lambda: self.snapshots, limit_s=10, what="first snapshot")
        return self

    def __exit__(self, *error: object) -> None:
        self.watching.stop()


class Incrementing:
    """Threads that increment counters by compare, each increment with a mark of its own in the same transaction."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self.done: list[tuple[float, str]] = []
        self.errors: list[str] = []
        self.ambiguous_done = 0
        self.problem: BaseException | None = None
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(writer,)) for writer in range(WRITERS)]

    def __enter__(self) -> Incrementing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(RECOVERY_LIMIT_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def count(self) -> int:
        return len(self.done)

    def writers_since(self, started_s: float) -> set[str]:
        return {mark.split("/")[-2] for at_s, mark in self.done if at_s > started_s}

    def longest_gap_s(self) -> float:
        times = sorted(at_s for at_s, _ in self.done)
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def _run(self, writer: int) -> None:
        number = 0
        try:
            while not self._is_over.is_set():
                number += 1
                self._increment(f"{self.prefix}counter/{number % COUNTERS}", f"{self.prefix}mark/{writer}/{number}")
        except BaseException as error:
            self.problem = error
            raise

    def _increment(self, counter: str, mark: str) -> None:
        is_in_doubt = False
        while True:
            try:
                reading = self.store.read(Key(counter), Key(mark))
                (count,), (made,) = (found or (None,) for found in reading.ranges)
                if made is not None:  # only a write in doubt can have made it
                    assert is_in_doubt
                    self.ambiguous_done += 1
                    break
                revision, value = (count.mod_revision, int(count.value)) if count else (0, 0)
                puts = [Put(counter, b"%d" % (value + 1)), Put(mark, counter.encode())]
                compares = [KeyUnchanged(counter, revision), KeyUnchanged(mark, 0)]
                if mark.endswith(("1", "3", "5", "7", "9")):
                    self.store.begin_commit(compares, puts)()
                else:
                    self.store.commit(compares, puts)
                break
            except ConflictError:
                continue
            except (UnavailableError, AmbiguousWriteError) as error:
                is_in_doubt |= isinstance(error, AmbiguousWriteError)
                self.errors.append(error.reason)
                if self._is_over.is_set() and not is_in_doubt:
                    return
        self.done.append((time.monotonic(), mark))


@pytest.mark.parametrize("failure", ["killed", "frozen"])
def test_nothing_is_lost_or_doubled_when_the_leader_goes(
    cluster: EtcdCluster, store: EtcdStore, prefix: str, failure: str
) -> None:
    with open_store(cluster) as other, Followed(other, prefix) as followed:
        with Incrementing(store, prefix) as work:
            wait_until(lambda: work.count() > 100, limit_s=10, what="100 increments")
            leader = cluster.leader()
            at_s = time.monotonic()
            cluster.kill(leader) if failure == "killed" else cluster.freeze(leader)
            everyone = {str(writer) for writer in range(WRITERS)}
            wait_until(
                lambda: work.writers_since(at_s + 0.5) == everyone,
                limit_s=RECOVERY_LIMIT_S,
                what="increment of every writer after the leader went",
            )
            back_s = time.monotonic() - at_s
            assert cluster.leader() is not leader
            leader.start() if failure == "killed" else leader.thaw()
            before = work.count()
            wait_until(lambda: work.count() > before + 100, limit_s=10, what="100 increments with all members")
        assert work.problem is None

        reading = store.read(Prefix(f"{prefix}counter/"), Prefix(f"{prefix}mark/"))
        counters = {kv.key: int(kv.value) for kv in reading.ranges[0]}
        marks = {kv.key: kv.value.decode() for kv in reading.ranges[1]}
        assert set(marks) == {mark for _, mark in work.done}
        assert counters == {key: list(marks.values()).count(key) for key in counters}

        wait_until(lambda: followed.watching.revision >= reading.revision, limit_s=10, what="watch that is up to date")
        assert len(followed.snapshots) == 1
        for key, count in counters.items():
            seen = [int(change.value or b"") for change in followed.changes if change.key == key]
            assert seen == list(range(1, count + 1))
        revisions = [change.mod_revision for change in followed.changes]
        assert revisions == sorted(revisions)
    print(
        f"leader {failure}: all writers back after {back_s:.2f} s, longest time without any increment "
        f"{work.longest_gap_s():.2f} s, {work.count()} increments, {work.errors.count('ambiguous_write')} ambiguous "
        f"({work.ambiguous_done} of them made), {work.errors.count('unavailable')} unavailable, {followed.transitions}"
    )


class TestOurMember:
    def test_killed_and_no_call_fails(self, cluster: EtcdCluster, store: EtcdStore, prefix: str) -> None:
        """Its connection's end is seen at once; what follows was certainly not sent to it, so goes to another."""
        member = follower_of(cluster, store)
        lease_id = store.grant_lease(30)
        cluster.kill(member)
        started_s = time.monotonic()
        assert store.keep_alive(lease_id) == 30
        store.commit([], [Put(f"{prefix}a", b"1", lease_id)])
        assert store.read(Key(f"{prefix}a")).one() is not None
        print(f"our member killed: three calls answered in {time.monotonic() - started_s:.3f} s")
        assert time.monotonic() - started_s < TIMEOUT_S

    @pytest.mark.parametrize("name", ["read", "grant_lease", "keep_alive", "revoke_lease"])
    def test_frozen_and_what_may_be_repeated_is_answered_by_another_in_time(
        self, cluster: EtcdCluster, store: EtcdStore, prefix: str, name: str
    ) -> None:
        member = follower_of(cluster, store)
        lease_id = store.grant_lease(30)

        def revoke() -> bool:
            store.revoke_lease(lease_id)
            return True

        calls: dict[str, Callable[[], object]] = {
            "read": lambda: store.read(Key("a")).revision,
            "grant_lease": lambda: store.grant_lease(30),
            "keep_alive": lambda: store.keep_alive(lease_id) == 30,
            "revoke_lease": revoke,
        }
        cluster.freeze(member)
        assert limited(calls[name])
        started_s = time.monotonic()
        store.commit([], [Put(f"{prefix}a", b"1")])
        assert time.monotonic() - started_s < TIMEOUT_S / 2  # nobody goes back to the silent one

    def test_a_write_to_a_frozen_one_is_ambiguous_and_read_elsewhere(
        self, cluster: EtcdCluster, store: EtcdStore, prefix: str
    ) -> None:
        member = follower_of(cluster, store)
        cluster.freeze(member)
        with pytest.raises(AmbiguousWriteError, match=member.url):
            limited(lambda: store.commit([KeyUnchanged(f"{prefix}a", 0)], [Put(f"{prefix}a", b"1")]))
        assert limited(lambda: store.read(Key(f"{prefix}a"))).one() is None
        store.commit([KeyUnchanged(f"{prefix}a", 0)], [Put(f"{prefix}a", b"2")])
        member.thaw()
        with EtcdStore([member.url], timeout_s=TIMEOUT_S) as thawed:
            read_when_possible(thawed)  # it has carried out by now what it still had in its hands
            kv = thawed.read(Key(f"{prefix}a")).one()
        assert kv is not None
        assert kv.value == b"2"

    def test_a_watch_on_a_frozen_one_goes_on_elsewhere_within_its_limit(
        self, cluster: EtcdCluster, store: EtcdStore, prefix: str
    ) -> None:
        member = follower_of(cluster, store)
        with open_store(cluster, member) as others, Followed(store, prefix) as followed:
            others.commit([], [Put(f"{prefix}a", b"1")])
            wait_until(lambda: followed.view() == {f"{prefix}a": b"1"}, limit_s=5, what="change before the freeze")
            cluster.freeze(member)
            started_s = time.monotonic()
            others.commit([], [Put(f"{prefix}a", b"2")])
            wait_until(lambda: followed.view() == {f"{prefix}a": b"2"}, limit_s=10, what="change after the freeze")
            took_s = time.monotonic() - started_s
            print(f"frozen member: the watch went on elsewhere after {took_s:.2f} s, limit {SILENCE_LIMIT_S:g} s")
            assert took_s < SILENCE_LIMIT_S + TIMEOUT_S + SLACK_S
            assert len(followed.snapshots) == 1
            wait_until(lambda: followed.watching.is_current, limit_s=5, what="watching that is current")
            assert followed.transitions == [events.WATCH_LOST, events.WATCH_RECOVERED]


class TestQuietWatch:
    def test_a_living_member_gives_signs_of_life(self, cluster: EtcdCluster, prefix: str) -> None:
        with EtcdStore(cluster.urls, timeout_s=TIMEOUT_S, watch_silence_limit_s=0.5) as store:
            watch = store.watch(prefix, start_revision=store.read(Key("a")).revision + 1)
            assert watch.next(2.5) is None
            store.commit([], [Put(f"{prefix}a", b"1")])
            batch = watch.next(5)
            assert batch is not None
            assert [change.value for change in batch.changes] == [b"1"]

    def test_a_reader_that_is_slow_does_not_take_it_for_dead(self, cluster: EtcdCluster, prefix: str) -> None:
        with EtcdStore(cluster.urls, timeout_s=TIMEOUT_S, watch_silence_limit_s=0.2) as store:
            watch = store.watch(prefix, start_revision=store.read(Key("a")).revision + 1)
            written = 0
            started_s = time.monotonic()
            while time.monotonic() - started_s < 1 or written < 200:  # more than the watch holds
                store.commit([], [Put(f"{prefix}a", b"%d" % written)])
                written += 1
            seen: list[bytes | None] = []
            while len(seen) < written:
                batch = watch.next(5)
                assert batch is not None
                seen += [change.value for change in batch.changes]
            assert seen == [b"%d" % number for number in range(written)]

    def test_a_dead_one_is_told_within_the_limit(self, cluster: EtcdCluster, store: EtcdStore, prefix: str) -> None:
        watch = store.watch(prefix, start_revision=store.read(Key("a")).revision + 1)
        store.commit([], [Put(f"{prefix}a", b"1")])
        assert watch.next(5) is not None
        member = connected(cluster, store)
        cluster.freeze(member)
        started_s = time.monotonic()
        with pytest.raises(UnavailableError, match=f"{member.url}: a watch is dead"):
            watch.next(30)
        assert SILENCE_LIMIT_S / 2 < time.monotonic() - started_s < SILENCE_LIMIT_S + SLACK_S


class TestQuorumLost:
    def test_every_call_is_refused_in_time_and_all_comes_back(
        self, cluster: EtcdCluster, store: EtcdStore, prefix: str
    ) -> None:
        kept, lost = store.grant_lease(60), store.grant_lease(2)
        store.commit([], [Put(f"{prefix}kept", b"1", kept), Put(f"{prefix}lost", b"1", lost)])
        with Followed(store, prefix) as followed:
            survivor = connected(cluster, store)
            for member in cluster.members:
                if member is not survivor:
                    cluster.kill(member)
            for call, errors in (
                (lambda: store.read(Prefix(prefix)), UnavailableError),
                (lambda: store.commit([], [Put(f"{prefix}b", b"")]), (UnavailableError, AmbiguousWriteError)),
                (lambda: store.keep_alive(kept), UnavailableError),
                (lambda: store.grant_lease(10), (UnavailableError, AmbiguousWriteError)),
            ):
                with pytest.raises(errors):
                    limited(call)
            wait_until(lambda: events.WATCH_LOST in followed.transitions, limit_s=10, what="loss told of the watch")
            # From here on the survivor knows that it has no leader: a write is certainly not taken.
            with pytest.raises(UnavailableError):
                wait_until(lambda: certain_refusal(store, prefix), limit_s=10, what="refusal that leaves no doubt")

            started_s = time.monotonic()
            cluster.start()
            read_when_possible(store)
            print(f"quorum lost: first read {time.monotonic() - started_s:.2f} s after the members were started")
            assert store.keep_alive(kept) == 60
            store.commit([], [Put(f"{prefix}after", b"1", kept)])
            wait_until(lambda: f"{prefix}after" in followed.view(), limit_s=RECOVERY_LIMIT_S, what="change in the view")
            wait_until(lambda: f"{prefix}lost" not in followed.view(), limit_s=15, what="end of the lease not renewed")
            with pytest.raises(LeaseNotFoundError):
                store.keep_alive(lost)


def test_a_compaction_under_a_watch_begins_again_with_a_snapshot(
    cluster: EtcdCluster, store: EtcdStore, prefix: str
) -> None:
    member = follower_of(cluster, store)
    with open_store(cluster, member) as others, Followed(store, prefix) as followed:
        others.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}gone", b"1")])
        wait_until(lambda: len(followed.view()) == 2, limit_s=5, what="first changes")
        first = followed.watching.revision
        cluster.freeze(member)
        others.commit([], [Put(f"{prefix}a", b"2")])
        reading = others.read(Prefix(prefix))
        gone = {kv.key: kv for kv in reading.ranges[0]}[f"{prefix}gone"]
        last = delete(others, gone.key)
        compact(cluster, last, member)
        wait_until(lambda: followed.view() == {f"{prefix}a": b"2"}, limit_s=10, what="view after the compaction")
        assert len(followed.snapshots) == 2
        watch = others.watch(prefix, start_revision=first + 1)
        with pytest.raises(CompactedError) as caught:
            watch.next(5)
        assert caught.value.compact_revision == last
        with pytest.raises(CompactedError):
            others.read(Prefix(prefix), revision=first)


class TestFull:
    QUOTA_BYTES = 4 * 1024 * 1024

    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[EtcdCluster]:
        with EtcdCluster(tmp_path / "etcd", flags={"quota-backend-bytes": str(self.QUOTA_BYTES)}) as cluster:
            yield cluster

    def test_it_is_told_reads_go_on_and_compacting_recovers(
        self, cluster: EtcdCluster, store: EtcdStore, prefix: str
    ) -> None:
        lease_id = store.grant_lease(60)
        store.commit([], [Put(f"{prefix}alive", b"1", lease_id)])
        message = fill(store, f"{prefix}a", self.QUOTA_BYTES)
        assert "database space exceeded" in message
        assert "compacted, defragmented and disarmed" in message
        before = store.read(Key(f"{prefix}a"))
        assert before.one() is not None
        assert store.keep_alive(lease_id) == 60  # who lives stays alive
        with pytest.raises(UnavailableError, match="database space exceeded"):
            store.grant_lease(60)  # but who is new can not begin
        assert store.read(Key(f"{prefix}a")).one() == before.one()
        delete(store, f"{prefix}alive")  # what frees space is taken

        compact(cluster, store.read(Key("a")).revision)
        for member in cluster.members:
            member.request("/v3/maintenance/defragment", {}).raise_for_status()
        alarms = cluster.members[0].request("/v3/maintenance/alarm", {"action": "GET"}).json()["alarms"]
        for alarm in alarms:
            disarm = {"action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": "NOSPACE"}
            cluster.members[0].request("/v3/maintenance/alarm", disarm).raise_for_status()
        wait_until(lambda: not refused(store, f"{prefix}b"), limit_s=10, what="write after the recovery")


def fill(store: Store, key: str, quota_bytes: int) -> str:
    """Overwrite `key` until etcd has no room for it; the refusal's text."""
    for _ in range(4 * quota_bytes // 100_000):
        try:
            store.commit([], [Put(key, b"x" * 100_000)])
        except UnavailableError as error:
            return error.message
    raise AssertionError("etcd did not become full")


def refused(store: Store, key: str) -> bool:
    try:
        store.commit([], [Put(key, b"")])
    except UnavailableError:
        return True
    return False


def delete(store: Store, key: str) -> int:
    return store.commit([], [Delete(key)])


def compact(cluster: EtcdCluster, revision: int, *without: EtcdServer) -> None:
    member = next(member for member in cluster.members if member not in without)
    member.request("/v3/kv/compaction", {"revision": revision, "physical": True}).raise_for_status()


def limited(call: Callable[[], object]):
    """What `call` answers or raises, which must be in time."""
    started_s = time.monotonic()
    try:
        return call()
    finally:
        assert time.monotonic() - started_s < TIMEOUT_S + SLACK_S


def certain_refusal(store: Store, prefix: str) -> bool:
    try:
        store.commit([], [Put(f"{prefix}b", b"")])
    except AmbiguousWriteError:
        return False
    return False


def read_when_possible(store: Store) -> None:
    """Reads may fail while the others elect a leader."""

    def is_read() -> bool:
        try:
            return store.read(Key("a")).revision > 0
        except LochnessError:
            return False

    wait_until(is_read, limit_s=RECOVERY_LIMIT_S, what="answer to a read")


def follower_of(cluster: EtcdCluster, store: EtcdStore) -> EtcdServer:
    """The member `store` is connected to, after seeing to it that another one leads."""
    member = connected(cluster, store)
    if cluster.leader() is member:
        other = next(other for other in cluster.members if other is not member)
        target = other.request("/v3/maintenance/status", {}).json()["header"]["member_id"]
        member.request("/v3/maintenance/transfer-leadership", {"targetID": target}).raise_for_status()
        wait_until(lambda: cluster.leader() is not member, limit_s=10, what="another leader")
    assert connected(cluster, store) is member
    return member
