"""Errors say what failed with its values, and carry a stable word."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from lochness import errors
from lochness.errors import ConflictError, HTTPCodeError, LochnessError, NotFoundError, ValidationError

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, LochnessError) and kind is not LochnessError
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_one_of_ours_and_tells_a_stable_word(kind):
    assert re.fullmatch(r"[a-z_]+", kind.reason)
    assert kind.reason != LochnessError.reason
    documented = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
    assert f"| `{kind.__name__}` | `{kind.reason}`" in documented


def test_a_wrong_status_is_told_as_the_original_did():
    assert str(HTTPCodeError(202, 404)) == "unexpected HTTP Response Code: Expected 202, Received 404"
    assert str(HTTPCodeError(202, 404, message="no such guest")).endswith("Received 404: no such guest")


def test_details_are_kept_for_logs_and_answers():
    assert ValidationError("x", field="mac", got="z").details == {"field": "mac", "got": "z"}
    missing = NotFoundError("flavor", "f1", field="flavor")
    assert missing.details == {"kind": "flavor", "id": "f1", "field": "flavor"}
    conflict = ConflictError("x", keys=["a"], reason="has_guests")
    assert (conflict.reason, ConflictError.reason) == ("has_guests", "conflict")
