"""Which snapshots a guest has, and how one may be called."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lochness.errors import ConflictError, ValidationError
from lochness_node.agent.guests.decide_snapshots import (
    DiskSnapshot,
    Snapshot,
    joined,
    requested_name,
    require_free,
    snapshot_name,
)

NOW = datetime(2026, 11, 25, 7, 30, tzinfo=UTC)


def test_a_guests_snapshot_is_one_that_every_disk_has():
    found = {
        "vda": [DiskSnapshot("late", 20), DiskSnapshot("early", 10), DiskSnapshot("vda-only", 5)],
        "vdb": [DiskSnapshot("early", 11), DiskSnapshot("late", 20)],
    }
    assert joined(found) == [Snapshot("early", ("vda", "vdb"), 11), Snapshot("late", ("vda", "vdb"), 20)]


def test_a_name_is_free_only_when_no_disk_has_it():
    require_free({"vda": set(), "vdb": {"other"}}, "s")
    with pytest.raises(ConflictError, match="s is on vdb already") as raised:
        require_free({"vda": set(), "vdb": {"s"}}, "s")
    assert raised.value.reason == "snapshot_exists"


def test_a_request_without_a_name_is_named_by_the_time():
    for body in (b"", b" ", b"{}", b'{"name":""}'):
        assert requested_name(body, NOW) == "20261125T073000.000000Z"
    assert requested_name(b'{"name":"nightly"}', NOW) == "nightly"


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"name":1}', b'{"name":null}', b'{"name":"a/b"}'])
def test_a_request_that_names_nothing_usable_is_refused(body):
    with pytest.raises(ValidationError):
        requested_name(body, NOW)


@given(st.text(max_size=80))
def test_a_name_that_is_taken_can_do_no_harm(text):
    """Neither a path, an option, a qemu-img option string nor a line of its own."""
    try:
        name = snapshot_name(text)
    except ValidationError:
        return
    assert name == text
    assert not set(name) & set("/\\,=: \t\r\n\0\"'")
    assert name[0] not in "-."
