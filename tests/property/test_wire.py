"""What is encoded by hand is what the client's own message classes make of the same transaction."""

from __future__ import annotations

from typing import Any

from etcd3 import etcdrpc
from hypothesis import given
from hypothesis import strategies as st

from lochness.store.etcd import wire
from lochness.store.protocol import (
    Compare,
    Delete,
    DeletePrefix,
    KeyExists,
    KeyUnchanged,
    Operation,
    PrefixUnchanged,
    Put,
)

# Names up to lengths that take three bytes; surrogates stand for bytes that are not UTF-8.
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300),
    st.lists(st.sampled_from(["lochness/", "guests/", "\udcff", "\udc80", "é"]), min_size=1).map("".join),
    st.integers(16_000, 17_000).map(lambda length: "k" * length),
)
revisions = st.integers(0, 2**62)
compares = st.lists(
    st.one_of(
        st.builds(KeyUnchanged, names, revisions),
        st.builds(KeyExists, names),
        st.builds(PrefixUnchanged, names, revisions),
    )
)
values = st.one_of(st.binary(max_size=300), st.integers(16_000, 17_000).map(lambda length: b"v" * length))
operations = st.lists(
    st.one_of(
        st.builds(Put, names, values, st.integers(0, 2**63 - 1)),
        st.builds(Delete, names),
        st.builds(DeletePrefix, names),
    )
)


@given(compares, operations, st.booleans())
def test_a_transaction_is_encoded_as_the_clients_own_classes_do(
    compares: list[Compare], operations: list[Operation], has_evidence: bool
):
    request = etcdrpc.TxnRequest(
        compare=[_compare(compare) for compare in compares],
        success=[_operation(operation) for operation in operations],
        failure=[{"request_range": _evidence(compare)} for compare in compares if has_evidence],
    )
    assert etcdrpc.TxnRequest.FromString(wire.transaction(compares, operations, has_evidence=has_evidence)) == request


def _compare(compare: Compare) -> dict[str, Any]:
    match compare:
        case KeyUnchanged(key, mod_revision):
            fields = {"target": etcdrpc.Compare.MOD, "result": etcdrpc.Compare.EQUAL, "mod_revision": mod_revision}
            return {"key": _bytes(key)} | fields
        case KeyExists(key):
            fields = {"target": etcdrpc.Compare.CREATE, "result": etcdrpc.Compare.GREATER, "create_revision": 0}
            return {"key": _bytes(key)} | fields
        case PrefixUnchanged(prefix, revision):
            fields = {"target": etcdrpc.Compare.MOD, "result": etcdrpc.Compare.LESS, "mod_revision": revision + 1}
            return _range(prefix) | fields


def _evidence(compare: Compare) -> dict[str, Any]:
    if not isinstance(compare, PrefixUnchanged):
        return {"key": _bytes(compare.key), "keys_only": True}
    return _range(compare.prefix) | {"min_mod_revision": compare.revision + 1, "limit": 1, "keys_only": True}


def _operation(operation: Operation) -> dict[str, Any]:
    match operation:
        case Put(key, value, lease_id):
            return {"request_put": {"key": _bytes(key), "value": value, "lease": lease_id}}
        case Delete(key):
            return {"request_delete_range": {"key": _bytes(key)}}
        case DeletePrefix(prefix):
            return {"request_delete_range": _range(prefix)}


def _range(prefix: str) -> dict[str, Any]:
    first = _bytes(prefix)
    stem = first.rstrip(b"\xff")
    return {"key": first, "range_end": stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"}


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
