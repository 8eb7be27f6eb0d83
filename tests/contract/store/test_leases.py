"""Leases: what ends with them, what keeps them, and what happens to one that is gone."""

from __future__ import annotations

import pytest

from lochness.errors import LeaseNotFoundError, ValidationError
from lochness.store.protocol import Key, Prefix, Put, Store
from lochness_lab.waiting import wait_until


def keys(store: Store, prefix: str) -> list[str]:
    return [kv.key.removeprefix(prefix) for kv in store.read(Prefix(prefix)).ranges[0]]


def test_keys_end_with_their_lease_and_no_others(store: Store, prefix: str) -> None:
    lease_id = store.grant_lease(60)
    other_id = store.grant_lease(60)
    assert lease_id != other_id
    store.commit([], [Put(f"{prefix}a", b"", lease_id), Put(f"{prefix}b", b"", lease_id), Put(f"{prefix}c", b"")])
    store.commit([], [Put(f"{prefix}d", b"", other_id)])
    kv = store.read(Key(f"{prefix}a")).one()
    assert kv is not None
    assert kv.lease_id == lease_id
    store.revoke_lease(lease_id)
    assert keys(store, prefix) == ["c", "d"]
    store.revoke_lease(other_id)


def test_a_lease_that_is_not_renewed_expires_with_its_keys(store: Store, prefix: str) -> None:
    lease_id = store.grant_lease(1)
    revision = store.commit([], [Put(f"{prefix}a", b"", lease_id), Put(f"{prefix}b", b"")])
    wait_until(lambda: keys(store, prefix) == ["b"], limit_s=10, what="key deleted by the lease's end")
    with pytest.raises(LeaseNotFoundError):
        store.keep_alive(lease_id)
    watch = store.watch(prefix, start_revision=revision + 1)
    batch = watch.next(5)
    watch.close()
    assert batch is not None
    assert [(change.key, change.value) for change in batch.changes] == [(f"{prefix}a", None)]


def test_a_watch_that_waits_sees_the_lease_end(store: Store, prefix: str) -> None:
    lease_id = store.grant_lease(1)
    revision = store.commit([], [Put(f"{prefix}a", b"", lease_id)])
    watch = store.watch(prefix, start_revision=revision + 1)
    batch = watch.next(10)
    watch.close()
    assert batch is not None
    assert [(change.key, change.value) for change in batch.changes] == [(f"{prefix}a", None)]


def test_renewing_keeps_a_lease_beyond_its_ttl(store: Store, prefix: str) -> None:
    kept_id, left_id = store.grant_lease(2), store.grant_lease(2)
    store.commit([], [Put(f"{prefix}kept", b"", kept_id), Put(f"{prefix}left", b"", left_id)])

    def has_left_ended() -> bool:
        assert store.keep_alive(kept_id) >= 1
        return keys(store, prefix) == ["kept"]

    wait_until(has_left_ended, limit_s=15, what="end of the lease that nobody renewed")
    store.revoke_lease(kept_id)


def test_keep_alive_answers_the_ttl(store: Store) -> None:
    lease_id = store.grant_lease(37)
    assert store.keep_alive(lease_id) == 37
    store.revoke_lease(lease_id)


def test_a_put_without_the_lease_detaches_the_key(store: Store, prefix: str) -> None:
    lease_id, new_id = store.grant_lease(60), store.grant_lease(60)
    store.commit([], [Put(f"{prefix}{name}", b"", lease_id) for name in ("detached", "moved", "same")])
    store.commit([], [Put(f"{prefix}detached", b""), Put(f"{prefix}moved", b"", new_id)])
    store.commit([], [Put(f"{prefix}same", b"2", lease_id)])
    store.revoke_lease(lease_id)
    assert keys(store, prefix) == ["detached", "moved"]
    store.revoke_lease(new_id)
    assert keys(store, prefix) == ["detached"]


def test_a_lease_that_is_gone_can_not_be_renewed_but_revoked_again(store: Store) -> None:
    lease_id = store.grant_lease(60)
    store.revoke_lease(lease_id)
    with pytest.raises(LeaseNotFoundError):
        store.keep_alive(lease_id)
    store.revoke_lease(lease_id)


def test_a_lease_lasts_at_least_a_second(store: Store) -> None:
    for ttl_s in (0, -1):
        with pytest.raises(ValidationError):
            store.grant_lease(ttl_s)
