"""May a store be asked this at all? The checks that every store makes before it does anything.

Invariants:
1. What passes here, etcd accepts: no store finds a transaction malformed that another one performs.
2. A `ValidationError` from here means that nothing was sent and nothing changed.

Not guaranteed: that values fit. etcd refuses a request above 1.5 MiB (also a `ValidationError`), memory does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from lochness.errors import ValidationError
from lochness.store.protocol import (
    MAX_TRANSACTION_OPS,
    Compare,
    DeletePrefix,
    Operation,
    Prefix,
    PrefixUnchanged,
    Put,
    Selector,
)


def check_selectors(selectors: Sequence[Selector], revision: int) -> None:
    """Raise ValidationError for no selector, too many, an empty key or prefix, or a negative revision."""
    if not selectors:
        raise ValidationError("a read needs at least one key or prefix")
    if len(selectors) > MAX_TRANSACTION_OPS:
        raise ValidationError(f"a read takes at most {MAX_TRANSACTION_OPS} selectors, got {len(selectors)}")
    for selector in selectors:
        check_name(selector.prefix if isinstance(selector, Prefix) else selector.key)
    if revision < 0:
        raise ValidationError(f"a revision is not negative, got {revision}")


def check_transaction(compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
    """Raise ValidationError for no operation, too many compares or operations, or a key written twice."""
    if not operations:
        raise ValidationError("a transaction needs at least one operation")
    for what, count in (("compares", len(compares)), ("operations", len(operations))):
        if count > MAX_TRANSACTION_OPS:
            raise ValidationError(f"a transaction takes at most {MAX_TRANSACTION_OPS} {what}, got {count}")
    for compare in compares:
        check_name(compare.prefix if isinstance(compare, PrefixUnchanged) else compare.key)
    _check_written_once(operations)


def check_watch(prefix: str, start_revision: int) -> None:
    """Raise ValidationError for an empty prefix or a start revision below 1."""
    check_name(prefix)
    if start_revision < 1:
        raise ValidationError(f"a watch starts at revision 1 or later, got {start_revision}")


def check_ttl(ttl_s: int) -> None:
    """Raise ValidationError for a lease that could not live for a second."""
    if ttl_s < 1:
        raise ValidationError(f"a lease lasts at least 1 s, got {ttl_s}")


def check_name(name: str) -> None:
    """Raise ValidationError for an empty key or prefix: etcd would take it for every key there is."""
    if not name:
        raise ValidationError("a key or prefix must not be empty")


def _check_written_once(operations: Sequence[Operation]) -> None:
    keys: set[str] = set()
    prefixes: list[str] = []
    for operation in operations:
        if isinstance(operation, DeletePrefix):
            check_name(operation.prefix)
            prefixes.append(operation.prefix)
            continue
        key = operation.key
        check_name(key)
        if key in keys:
            raise ValidationError(f"the transaction writes {key!r} twice", key=key)
        keys.add(key)
        if isinstance(operation, Put) and operation.lease_id < 0:
            raise ValidationError(f"a lease id is not negative, got {operation.lease_id} for {key!r}", key=key)
    for index, prefix in enumerate(prefixes):
        for other in prefixes[index + 1 :]:
            if prefix.startswith(other) or other.startswith(prefix):
                raise ValidationError(f"the transaction deletes {prefix!r} and {other!r}, which overlap")
        for key in keys:
            if key.startswith(prefix):
                raise ValidationError(f"the transaction writes {key!r} and deletes its prefix {prefix!r}", key=key)
