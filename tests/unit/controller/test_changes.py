"""The window over the latest changes."""

from __future__ import annotations

import sys

import pytest

from lochness import keys
from lochness.store.protocol import Change, WatchBatch
from lochness_controller.api import changes as module
from lochness_controller.api.changes import Changes


def change(revision: int, number: int = 0, size: int = 1) -> Change:
    return Change(keys.config(f"{revision}.{number}"), b"x" * size, revision)


def filled(*revisions: int) -> Changes:
    window = Changes()
    window.begin_anew(10, False)
    for revision in revisions:
        window.take(WatchBatch(revision, (change(revision), change(revision, 1))))
    return window


def test_changes_after_a_revision_come_in_whole_revisions():
    window = filled(11, 12, 15)
    assert window.after(10, 1) == ([change(11), change(11, 1)], 11)
    assert window.after(11, 3) == ([change(12), change(12, 1), change(15), change(15, 1)], 15)
    assert window.after(13, 9) == ([change(15), change(15, 1)], 15)
    assert window.after(15, 9) == ([], 15)


def test_a_window_does_not_answer_for_what_it_does_not_have():
    window = filled(11)
    assert window.after(9, 9) is None
    assert window.after(12, 9) is None
    assert Changes().after(5, 9) is None


def test_old_changes_leave_by_number_and_by_size_and_the_window_says_so():
    window = filled()
    last = 10 + module.WINDOW_CHANGES_MAX
    for revision in range(11, last + 1):
        window.take(WatchBatch(revision, (change(revision), change(revision, 1))))
    assert window.after(10, 1) is None
    assert window.first == last - module.WINDOW_CHANGES_MAX // 2
    found = window.after(window.first, last)
    assert found is not None
    assert len(found[0]) == module.WINDOW_CHANGES_MAX
    window.take(WatchBatch(last + 1, (change(last + 1, size=module.WINDOW_BYTES_MAX + 1),)))
    assert window.after(last, 9) is None
    assert window.after(last + 1, 9) == ([], last + 1)


def test_a_gap_begins_the_window_anew():
    window = filled(11, 12)
    window.begin_anew(40, False)
    assert window.after(12, 9) is None
    assert window.after(40, 9) == ([], 40)


@pytest.mark.parametrize("key", ["lochness/tokens/x", "lochness/requests/x", "lochness/groups/a/placed", "lochness/x"])
def test_what_is_nobodys_business_is_not_told(key):
    window = filled()
    window.take(WatchBatch(11, (Change(key, b"{}", 11), change(11))))
    assert window.after(10, 9) == ([change(11)], 11)


def test_what_has_left_the_window_is_soon_let_go():
    window = Changes()
    window.begin_anew(10, False)
    oldest = change(11)
    window.take(WatchBatch(11, (oldest,)))
    held = sys.getrefcount(oldest)
    for revision in range(12, 12 + module.WINDOW_CHANGES_MAX + 2 * module.DROPPED_MAX):
        window.take(WatchBatch(revision, (change(revision),)))
    assert sys.getrefcount(oldest) == held - 1
