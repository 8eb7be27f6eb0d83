"""docs/surface.md: every name of it exists and is held by a test that exists, and every exported name is in it."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path

import pytest

import lochness

ROOT = Path(__file__).parents[3]
DEFAULT_FILE = "tests/contract/library/test_context.py"


def rows() -> list[tuple[list[str], str]]:
    lines = (ROOT / "docs" / "surface.md").read_text().splitlines()
    matches = (re.fullmatch(r"\| (`.+`) \| [^|]+ \| `([^`]+)` \|", line) for line in lines)
    return [(re.findall(r"`([^`]+)`", match[1]), match[2]) for match in matches if match]


NAMES = [name for names, _ in rows() for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name):
    assert reduce(getattr, name.split("."), lochness) is not None


@pytest.mark.parametrize("test", sorted({test for _, test in rows()}))
def test_the_test_is_there(test):
    file, _, function = test.rpartition("::") if "::" in test else ("", "", test)
    path = ROOT / (file or (test if "/" in test else DEFAULT_FILE))
    assert path.is_file()
    if "/" not in function:
        assert f"def {function}(" in path.read_text()


def test_every_exported_name_is_in_the_table():
    assert set(lochness.__all__) <= set(NAMES)
