"""What the benchmarks measure with does not itself cost what they tell, and the cluster they make is a living one."""

from __future__ import annotations

import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from bench.bench_lists import fill
from bench.node import seconds_until
from bench.p3_one_guest import Idle, bound_ms
from lochness import keys
from lochness.context import Context
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Put, Watch
from tests.process.node_daemons import Cluster

GUEST, HYPERVISOR = "5f0c9e2e-62dc-4fd4-9b1c-8a0f27d6a001", "5f0c9e2e-62dc-4fd4-9b1c-8a0f27d6a002"


class OneWatch(MemoryStore):
    """A store on which a measurement that opens a watch of its own fails: etcd serves new ones every 100 ms only."""

    def __init__(self) -> None:
        super().__init__()
        self.first = super().watch(keys.ROOT, start_revision=1)

    def watch(self, *_arguments: object, **_options: object) -> Watch:
        raise AssertionError("a measurement opened a watch of its own")


@dataclass
class Answer:
    """An answer of the controller, as far as P3 looks at it."""

    fields: dict[str, Any]
    status_code: int = 202

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Guest-Job-ID": "job"}

    def json(self) -> dict[str, Any]:
        return self.fields


@dataclass
class Controller:
    """Binds each guest at once."""

    store: MemoryStore

    def post(self, _path: str, json: object) -> Answer:
        self.store.commit((), [Put(keys.hypervisor_guest(HYPERVISOR, GUEST), b"{}")])
        return Answer({"id": GUEST, "given": json})

    def get(self, _path: str) -> Answer:
        return Answer({"status": "done"}, status_code=200)


@dataclass
class Fleet:
    flavor: str = "flavor"
    network: str = "network"


@dataclass
class Measured:
    """The store as a benchmark holds it."""

    store: MemoryStore
    client: Controller
    fleet: Fleet


@pytest.fixture
def store() -> Iterator[OneWatch]:
    with OneWatch() as store:
        yield store


def test_a_change_is_seen_on_the_watch_that_is_open_already(store: OneWatch):
    cluster = cast("Cluster", Measured(store, Controller(store), Fleet()))
    key = keys.hypervisor_guest(HYPERVISOR, GUEST)
    put = Put(key, b"new")
    assert seconds_until(cluster, store.first, key, lambda: store.commit((), [put]), lambda value: value == b"new") >= 0


def test_a_binding_is_seen_on_the_watch_that_is_open_already(store: OneWatch):
    idle = cast("Idle", Measured(store, Controller(store), Fleet()))
    assert bound_ms(idle, store.first) >= 0


def test_hypervisors_of_the_lists_are_alive():
    with MemoryStore() as store:
        fill(store, hypervisors=3, guests=6)
        assert [hypervisor.is_alive() for hypervisor in Context(store).hypervisors()] == [True] * 3


def test_the_environment_is_compiled():
    """Each daemon compiles what is not, at each start: 1.5 s and 14 MB (packaging/bootstrap.sh)."""
    found = Path(sysconfig.get_path("purelib"))
    names = (
        "litestar",
        "uvicorn",
        "msgspec",
        "structlog",
        "httpx",
        "prometheus_client",
        "typer",
        "rich",
        "schemathesis",
    )
    assert [str(path) for name in names for path in _not_compiled((found / name).rglob("*.py"))] == []


def _not_compiled(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not Path(importlib.util.cache_from_source(str(path))).exists()]
