"""How is a transaction said in protobuf's wire format? Encoded by hand, straight from compares and operations.

A placement is 9 messages inside a transaction's request: as message objects, and as the dictionaries they are built
from, they take more time than deciding it. tests/property/test_wire.py holds this equal to what the client's own
classes, generated from etcd's definitions, make of the same.

The names and numbers of fields are those of etcd's api/etcdserverpb/rpc.proto; (number << 3 | 0) begins an integer,
(number << 3 | 2) whatever is a length and so many bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lochness.store.protocol import (
    Compare,
    Delete,
    KeyUnchanged,
    Operation,
    PrefixUnchanged,
    Put,
)

_TXN_COMPARE: Final = b"\x0a"  # TxnRequest.compare = 1
_TXN_SUCCESS: Final = b"\x12"  # TxnRequest.success = 2, a RequestOp
_TXN_FAILURE: Final = b"\x1a"  # TxnRequest.failure = 3, a RequestOp
_OP_RANGE: Final = b"\x0a"  # RequestOp.request_range = 1
_OP_PUT: Final = b"\x12"  # RequestOp.request_put = 2
_OP_DELETE: Final = b"\x1a"  # RequestOp.request_delete_range = 3
_KEY: Final = b"\x0a"  # PutRequest.key = 1, as RangeRequest.key and DeleteRangeRequest.key
_PUT_VALUE: Final = b"\x12"  # PutRequest.value = 2
_PUT_LEASE: Final = b"\x18"  # PutRequest.lease = 3
_RANGE_END: Final = b"\x12"  # RangeRequest.range_end = 2, as DeleteRangeRequest.range_end
_ONE_KEY_ONLY: Final = b"\x18\x01\x40\x01"  # RangeRequest.limit = 3: 1, keys_only = 8: true
_KEY_ONLY: Final = b"\x40\x01"
_MIN_MOD_REVISION: Final = b"\x50"  # RangeRequest.min_mod_revision = 10
_MOD_EQUAL: Final = b"\x10\x02\x1a"  # Compare.result = 1: EQUAL (0, left out), target = 2: MOD, and then key = 3
_MOD_LESS: Final = b"\x08\x02\x10\x02\x1a"  # result: LESS, target: MOD, key
_CREATE_GREATER: Final = b"\x08\x01\x10\x01\x1a"  # result: GREATER, target: CREATE, key
_CREATE_REVISION_0: Final = b"\x28\x00"  # Compare.create_revision = 5
_MOD_REVISION: Final = b"\x30"  # Compare.mod_revision = 6
_COMPARE_RANGE_END: Final = b"\x82\x04"  # Compare.range_end = 64


def encode_key(name: str) -> bytes:
    """A key as etcd has it."""
    # A key somebody else wrote with bytes that are not UTF-8 must neither break a read nor become undeletable.
    return name.encode("utf-8", "surrogateescape")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`, as etcd's ranges want it."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else b"\0"


def transaction(compares: Sequence[Compare], operations: Sequence[Operation], *, has_evidence: bool = False) -> bytes:
    """A TxnRequest. With `has_evidence` its failure branch shows, range by range, which of the compares do not hold."""
    parts: list[bytes] = []
    for compare in compares:
        encoded = _compare(compare)
        parts += _TXN_COMPARE, _varint(len(encoded)), encoded
    for operation in operations:
        encoded = _operation(operation)
        parts += _TXN_SUCCESS, _varint(len(encoded)), encoded
    if has_evidence:
        parts += [_TXN_FAILURE + _sized(_evidence(compare)) for compare in compares]
    return b"".join(parts)


def _compare(compare: Compare) -> bytes:
    """A Compare."""
    if isinstance(compare, KeyUnchanged):
        return _MOD_EQUAL + _sized(encode_key(compare.key)) + _MOD_REVISION + _varint(compare.mod_revision)
    if isinstance(compare, PrefixUnchanged):
        prefix = encode_key(compare.prefix)
        less_than = _MOD_REVISION + _varint(compare.revision + 1)
        return _MOD_LESS + _sized(prefix) + less_than + _COMPARE_RANGE_END + _sized(prefix_end(prefix))
    return _CREATE_GREATER + _sized(encode_key(compare.key)) + _CREATE_REVISION_0


def _evidence(compare: Compare) -> bytes:
    """A RequestOp: the range that tells whether the compare holds."""
    if not isinstance(compare, PrefixUnchanged):
        return _OP_RANGE + _sized(_KEY + _sized(encode_key(compare.key)) + _KEY_ONLY)
    prefix = encode_key(compare.prefix)
    newer = _MIN_MOD_REVISION + _varint(compare.revision + 1)
    return _OP_RANGE + _sized(_KEY + _sized(prefix) + _RANGE_END + _sized(prefix_end(prefix)) + _ONE_KEY_ONLY + newer)


def _operation(operation: Operation) -> bytes:
    """A RequestOp."""
    if isinstance(operation, Put):
        put = _KEY + _sized(encode_key(operation.key)) + _PUT_VALUE + _sized(operation.value)
        if operation.lease_id:
            put += _PUT_LEASE + _varint(operation.lease_id)
        return _OP_PUT + _sized(put)
    if isinstance(operation, Delete):
        return _OP_DELETE + _sized(_KEY + _sized(encode_key(operation.key)))
    name = encode_key(operation.prefix)
    return _OP_DELETE + _sized(_KEY + _sized(name) + _RANGE_END + _sized(prefix_end(name)))


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _encoded(number: int) -> bytes:
    """Seven bits a byte, the lowest first. A negative one is, as in C, the 64 bits of its complement."""
    number &= (1 << 64) - 1
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


#: Lengths, almost all of them, made once.
_SMALL: Final = tuple(_encoded(number) for number in range(2048))


def _varint(number: int) -> bytes:
    return _SMALL[number] if 0 <= number < 2048 else _encoded(number)
