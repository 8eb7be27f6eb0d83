"""Memory answers what etcd answers: random histories on both, every outcome, reading and watch compared.

Revisions are compared by their distance from where the example began.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lochness.errors import LochnessError
from lochness.store.etcd import EtcdStore
from lochness.store.memory import MemoryStore
from lochness.store.protocol import (
    Compare,
    Delete,
    DeletePrefix,
    Key,
    KeyExists,
    KeyUnchanged,
    Operation,
    Prefix,
    PrefixUnchanged,
    Put,
    Selector,
    Store,
)
from lochness_lab.etcd import EtcdServer

NAMES = st.sampled_from(["a", "a/", "a/1", "a/2", "b", "b/1", "ab"])
BACK = st.integers(0, 6)
VALUES = st.binary(max_size=3)

#: What to ask, with names below a prefix and revisions as a distance back from the current one.
COMPARES = st.lists(st.tuples(st.sampled_from(["same", "absent", "exists", "prefix"]), NAMES, BACK), max_size=3)
OPERATIONS = st.lists(st.tuples(st.sampled_from(["put", "put", "delete", "delete_prefix"]), NAMES, VALUES), max_size=4)
SELECTORS = st.lists(st.tuples(st.booleans(), NAMES, st.booleans()), min_size=1, max_size=3)
STEPS = st.lists(st.tuples(COMPARES, OPERATIONS, SELECTORS, BACK), min_size=1, max_size=12)


class Player:
    """Plays an example on one store and writes down what it says, revisions relative to the example's start."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self.start = self.current = store.read(Key(prefix)).revision
        self.answers: list[object] = []

    def relative(self, revision: int) -> int:
        return revision - self.start if revision else 0

    def compare(self, kind: str, name: str, back: int) -> Compare:
        past = max(self.current - back, self.start)
        match kind:
            case "same":
                kv = self.store.read(Key(self.prefix + name)).one()
                return KeyUnchanged(self.prefix + name, kv.mod_revision if kv and back < 5 else past)
            case "absent":
                return KeyUnchanged(self.prefix + name, 0)
            case "exists":
                return KeyExists(self.prefix + name)
            case _:
                return PrefixUnchanged(self.prefix + name, past)

    def operation(self, kind: str, name: str, value: bytes) -> Operation:
        key = self.prefix + name
        return Put(key, value) if kind == "put" else Delete(key) if kind == "delete" else DeletePrefix(key)

    def selector(self, is_prefix: bool, name: str, is_keys_only: bool) -> Selector:
        return Prefix(self.prefix + name, is_keys_only) if is_prefix else Key(self.prefix + name)

    def step(self, compares: list, operations: list, selectors: list, back: int) -> None:
        try:
            written = [self.operation(*operation) for operation in operations]
            self.current = self.store.commit([self.compare(*compare) for compare in compares], written)
            self.answers.append(self.relative(self.current))
        except LochnessError as error:
            keys = getattr(error, "keys", ())
            self.answers.append((type(error).__name__, [key.removeprefix(self.prefix) for key in keys]))
        past = max(self.current - back, self.start)
        reading = self.store.read(*[self.selector(*selector) for selector in selectors], revision=past if back else 0)
        self.answers.append(
            [
                [
                    (
                        kv.key.removeprefix(self.prefix),
                        kv.value,
                        *map(self.relative, (kv.create_revision, kv.mod_revision)),
                    )
                    for kv in items
                ]
                for items in reading.ranges
            ]
        )

    def watched(self) -> list[object]:
        """All changes since the start, as a watch opened now tells them."""
        last = self.store.commit([], [Put(f"{self.prefix}end", b"")])
        watch = self.store.watch(self.prefix, start_revision=self.start + 1)
        seen: list[object] = []
        revision = 0
        while revision < last:
            batch = watch.next(10)
            assert batch is not None
            revision = batch.revision
            seen += [
                (
                    change.key.removeprefix(self.prefix),
                    change.value,
                    self.relative(change.mod_revision),
                    self.relative(change.create_revision),
                )
                for change in batch.changes
            ]
        watch.close()
        return seen


@pytest.fixture(scope="module")
def real(etcd: EtcdServer) -> Iterator[EtcdStore]:
    with EtcdStore([etcd.url]) as store:
        yield store


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_memory_answers_what_etcd_answers(real: EtcdStore, steps: list) -> None:
    prefix = f"test/{uuid.uuid4()}/"
    with MemoryStore() as memory:
        players = [Player(memory, prefix), Player(real, prefix)]
        for player in players:
            for step in steps:
                player.step(*step)
        assert players[0].answers == players[1].answers
        assert players[0].watched() == players[1].watched()
