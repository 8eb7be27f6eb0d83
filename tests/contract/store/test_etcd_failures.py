"""A real etcd frozen, gone, restarted, or full: the right error in time, and recovery."""

from __future__ import annotations

import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lochness.errors import (
    AmbiguousWriteError,
    ConflictError,
    LochnessError,
    UnavailableError,
    ValidationError,
)
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Delete, Key, KeyUnchanged, Prefix, Put
from lochness_lab.etcd import EtcdServer, free_ports
from lochness_lab.waiting import wait_until

TIMEOUT_S = 1.0
#: What a deadline may be late by on a busy machine.
SLACK_S = 1.0


@pytest.fixture
def store(etcd: EtcdServer) -> Iterator[EtcdStore]:
    with EtcdStore([etcd.url], timeout_s=TIMEOUT_S) as store:
        yield store
    etcd.start()


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a port that is bound, so nobody else's, and that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class Frozen:
    """etcd stands still within the block."""

    def __init__(self, etcd: EtcdServer) -> None:
        self.etcd = etcd

    def __enter__(self) -> None:
        self.etcd.freeze()

    def __exit__(self, *error: object) -> None:
        self.etcd.thaw()


class TestFrozen:
    def test_a_read_is_unavailable_a_write_ambiguous_both_in_time(self, etcd: EtcdServer, prefix: str) -> None:
        # All seven within the 5 s after which the connection is given up; then a write is certain not to be sent.
        with EtcdStore([etcd.url], timeout_s=0.5) as store:
            self.check_in_time(etcd, store, prefix)

    def check_in_time(self, etcd: EtcdServer, store: EtcdStore, prefix: str) -> None:
        store.commit([], [Put(f"{prefix}a", b"before")])
        with Frozen(etcd):
            for call, error in (
                (lambda: store.read(Prefix(prefix)), UnavailableError),
                (lambda: store.read(Prefix(prefix), Key(prefix)), UnavailableError),
                (lambda: store.commit([], [Put(f"{prefix}a", b"frozen")]), AmbiguousWriteError),
                (store.begin_commit([], [Put(f"{prefix}a", b"frozen")]), AmbiguousWriteError),
                (lambda: store.grant_lease(10), AmbiguousWriteError),
                (lambda: store.keep_alive(1), UnavailableError),
                (lambda: store.revoke_lease(1), AmbiguousWriteError),
            ):
                started_s = time.monotonic()
                with pytest.raises(error):
                    call()
                assert time.monotonic() - started_s < 0.5 + SLACK_S

        kv = wait_until(lambda: readable(store, f"{prefix}a"), limit_s=10, what="answer after the thaw")
        assert kv.value in (b"before", b"frozen")  # that is what ambiguous means
        try:
            store.commit([KeyUnchanged(f"{prefix}a", kv.mod_revision)], [Put(f"{prefix}a", b"after")])
        except ConflictError:  # it came between the two: late, and seen by the compare
            assert kv.value == b"before"
            kv = store.read(Key(f"{prefix}a")).one()
            assert kv is not None
            assert kv.value == b"frozen"
            store.commit([KeyUnchanged(f"{prefix}a", kv.mod_revision)], [Put(f"{prefix}a", b"after")])

    def test_a_first_call_to_a_frozen_etcd_is_unavailable_in_time(self, etcd: EtcdServer) -> None:
        """The connection is made, by the kernel, but nobody speaks on it: the write was certainly not sent."""
        with Frozen(etcd), EtcdStore([etcd.url], timeout_s=TIMEOUT_S) as store:
            started_s = time.monotonic()
            with pytest.raises(UnavailableError):
                store.read(Key("a"))
            with pytest.raises((UnavailableError, AmbiguousWriteError)):
                store.commit([], [Put("a", b"")])
            assert time.monotonic() - started_s < 2 * (TIMEOUT_S + SLACK_S)

    def test_a_watch_opened_on_it_fails_in_time(self, etcd: EtcdServer, store: EtcdStore, prefix: str) -> None:
        revision = store.read(Key(prefix)).revision
        with Frozen(etcd):
            watch = store.watch(prefix, start_revision=revision + 1)
            started_s = time.monotonic()
            with pytest.raises(UnavailableError):
                watch.next(30)
            assert time.monotonic() - started_s < TIMEOUT_S + SLACK_S
            watch.close()

    def test_a_watch_that_was_open_misses_nothing(self, etcd: EtcdServer, store: EtcdStore, prefix: str) -> None:
        watch = store.watch(prefix, start_revision=store.read(Key(prefix)).revision + 1)
        store.commit([], [Put(f"{prefix}a", b"1")])
        assert watch.next(5) is not None
        with Frozen(etcd):
            assert watch.next(0.3) is None
        wait_until(lambda: readable_revision(store), limit_s=10, what="answer after the thaw")
        store.commit([], [Put(f"{prefix}a", b"2")])
        batch = watch.next(5)
        assert batch is not None
        assert [change.value for change in batch.changes] == [b"2"]
        watch.close()


class TestGone:
    def test_a_wrong_port_is_unavailable_for_reads_and_writes(self, nobody: str) -> None:
        with EtcdStore([nobody], timeout_s=TIMEOUT_S) as store:
            for call in (
                lambda: store.read(Key("a")),
                lambda: store.commit([], [Put("a", b"")]),
                store.begin_commit([], [Put("a", b"")]),
                lambda: store.grant_lease(10),
                lambda: store.keep_alive(1),
                lambda: store.revoke_lease(1),
                lambda: store.watch("a", start_revision=1).next(30),
            ):
                started_s = time.monotonic()
                with pytest.raises(UnavailableError) as caught:
                    call()
                assert time.monotonic() - started_s < TIMEOUT_S + SLACK_S
                assert nobody in caught.value.message

    def test_a_begun_write_that_was_certainly_not_taken_goes_to_another_member(
        self, etcd: EtcdServer, nobody: str, prefix: str
    ) -> None:
        for number in range(10):  # each store begins at a member of its own choice
            with EtcdStore([nobody, etcd.url], timeout_s=TIMEOUT_S) as store:
                key = f"{prefix}{number}"
                revision = store.begin_commit([KeyUnchanged(key, 0)], [Put(key, b"")])()
                found = store.read(Key(key)).one()
                assert found is not None
                assert found.mod_revision == revision

    def test_a_name_that_does_not_exist_is_unavailable(self) -> None:
        store = EtcdStore(["http://etcd.invalid:2379"], timeout_s=TIMEOUT_S)
        with store, pytest.raises(UnavailableError):
            store.commit([], [Put("a", b"")])

    def test_a_store_opened_before_its_etcd_finds_it(self, tmp_path: Path) -> None:
        ports = free_ports(2)
        with EtcdStore([f"http://127.0.0.1:{ports[0]}"], timeout_s=TIMEOUT_S) as store:
            with pytest.raises(UnavailableError):
                store.read(Key("a"))
            with EtcdServer(tmp_path, ports=(ports[0], ports[1])):
                wait_until(lambda: readable_revision(store), limit_s=10, what="answer of an etcd that came late")

    def test_it_comes_back_with_its_data(self, etcd: EtcdServer, store: EtcdStore, prefix: str) -> None:
        store.commit([], [Put(f"{prefix}a", b"1")])
        watch = store.watch(prefix, start_revision=1 + store.read(Key(prefix)).revision)
        assert watch.next(0.2) is None
        etcd.stop()
        with pytest.raises(UnavailableError):
            watch.next(5)
        with pytest.raises(UnavailableError):
            store.commit([], [Put(f"{prefix}a", b"lost")])
        etcd.start()
        kv = wait_until(lambda: readable(store, f"{prefix}a"), limit_s=10, what="answer after the restart")
        assert kv.value == b"1"

    def test_a_write_under_way_when_it_dies_is_never_called_unavailable_if_it_happened(
        self, etcd: EtcdServer, store: EtcdStore, prefix: str
    ) -> None:
        """Killed under four writers: what is called done is there afterwards, what is called unavailable is not."""
        outcomes: dict[str, str] = {}
        is_over = threading.Event()

        def write(writer: int) -> None:
            for number in itertools.count():
                key = f"{prefix}{writer}/{number}"
                try:
                    store.commit([], [Put(key, b"")])
                    outcomes[key] = "done"
                except LochnessError as error:
                    outcomes[key] = error.reason
                    is_over.wait(0.01)
                if is_over.is_set():
                    return

        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for each in writers:
            each.start()
        wait_until(lambda: len(outcomes) > 100, limit_s=20, what="100 writes")
        etcd.kill()
        wait_until(lambda: "unavailable" in outcomes.values(), limit_s=20, what="write that found nobody")
        is_over.set()
        for each in writers:
            each.join(20)
        etcd.start()
        wait_until(lambda: readable_revision(store), limit_s=10, what="answer after the restart")
        there = {kv.key for kv in store.read(Prefix(prefix)).ranges[0]}
        assert {key for key, outcome in outcomes.items() if outcome == "done"} <= there
        assert not there & {key for key, outcome in outcomes.items() if outcome == "unavailable"}


class TestSeveralEndpoints:
    def test_calls_go_on_to_the_endpoint_that_answers(self, etcd: EtcdServer, nobody: str, prefix: str) -> None:
        for _ in range(6):  # each begins at a random one
            with EtcdStore([nobody, etcd.url], timeout_s=TIMEOUT_S) as store:
                store.commit([], [Put(f"{prefix}a", b"")])
                assert store.read(Key(f"{prefix}a")).one() is not None
                watch = store.watch(prefix, start_revision=1)
                watch.close()

    def test_a_frozen_endpoint_costs_one_call(self, etcd: EtcdServer, tmp_path: Path) -> None:
        with EtcdServer(tmp_path) as other, EtcdStore([etcd.url, other.url], timeout_s=TIMEOUT_S) as store:
            store.read(Key("a"))
            with Frozen(other):
                failures = 0
                for _ in range(20):
                    try:
                        store.read(Key("a"))
                    except UnavailableError:
                        failures += 1
            assert failures <= 1


class TestRefusals:
    def test_a_full_database_refuses_writes_and_answers_reads(
        self, etcd: EtcdServer, store: EtcdStore, prefix: str
    ) -> None:
        def alarm(action: str) -> None:
            request = {"action": action, "memberID": 0, "alarm": "NOSPACE"}
            url = f"{etcd.url}/v3/maintenance/alarm"
            httpx.post(url, json=request, timeout=10, trust_env=False).raise_for_status()

        members = httpx.post(f"{etcd.url}/v3/cluster/member/list", json={}, timeout=10, trust_env=False).json()
        assert len(members["members"]) == 1
        alarm("ACTIVATE")
        try:
            with pytest.raises(UnavailableError, match="database space exceeded"):
                store.commit([], [Put(f"{prefix}a", b"")])
            assert store.read(Key(f"{prefix}a")).one() is None
        finally:
            alarm("DEACTIVATE")
        store.commit([], [Put(f"{prefix}a", b"")])

    @pytest.mark.parametrize("size", [2_000_000, 20_000_000])
    def test_a_value_too_large_for_etcd_is_invalid(self, store: EtcdStore, prefix: str, size: int) -> None:
        with pytest.raises(ValidationError):
            store.commit([], [Put(f"{prefix}a", b"x" * size)])
        assert store.read(Key(f"{prefix}a")).one() is None

    def test_a_key_that_is_not_text_is_read_and_can_be_deleted(
        self, etcd: EtcdServer, store: EtcdStore, prefix: str
    ) -> None:
        subprocess.run(
            ["etcdctl", "--endpoints", etcd.url, "put", prefix.encode() + b"\xff\xfe", "x"],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            timeout=20,
        )
        (kv,) = store.read(Prefix(prefix)).ranges[0]
        assert store.read(Key(kv.key)).one() == kv
        assert store.read(Prefix(kv.key)).one() == kv
        store.commit([KeyUnchanged(kv.key, kv.mod_revision)], [Delete(kv.key)])
        assert store.read(Prefix(prefix)).ranges == ((),)


def readable(store: EtcdStore, key: str):
    try:
        return store.read(Key(key)).one()
    except UnavailableError:
        return None


def readable_revision(store: EtcdStore) -> int:
    try:
        return store.read(Key("a")).revision
    except UnavailableError:
        return 0
