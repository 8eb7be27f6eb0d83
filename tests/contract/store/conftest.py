"""The stores under contract: in memory, in memory behind a FaultyStore without orders, and in a real etcd."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from lochness.store.etcd import EtcdStore
from lochness.store.faults import FaultyStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Store
from lochness_lab.etcd import EtcdServer


@dataclass(frozen=True)
class Backend:
    """A store and what the protocol has no call for: compacting it, as its operator does."""

    store: Store
    compact: Callable[[int], None]


def compact_etcd(server: EtcdServer, revision: int) -> None:
    answer = httpx.post(f"{server.url}/v3/kv/compaction", json={"revision": revision}, timeout=10, trust_env=False)
    answer.raise_for_status()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """A real etcd for the whole session. It missing is a failure, not a skip."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(params=["memory", "faulty", "etcd"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd")
        with EtcdStore([server.url]) as store:
            yield Backend(store, lambda revision: compact_etcd(server, revision))
        return
    memory = MemoryStore()
    with memory if request.param == "memory" else FaultyStore(memory) as chosen:
        yield Backend(chosen, memory.compact)


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.store


@pytest.fixture
def prefix() -> str:
    """A prefix that no other test writes under."""
    return f"test/{uuid.uuid4()}/"
