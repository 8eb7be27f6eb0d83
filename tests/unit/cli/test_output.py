"""Tables, fields and what a hostile name can do to a terminal: nothing."""

from __future__ import annotations

import pytest

from lochness.cli.exits import one_line
from lochness.cli.output import fields, megabytes, plain, shown, table, width


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_right():
    lines = table(["NAME", "CPU"], [["a", "1"], ["日本", "10"], ["é́e", "5"]], [False, True])
    assert lines == ["NAME  CPU", "a       1", "日本   10", "é́e      5"]


@pytest.mark.parametrize(("text", "expected"), [("ab", 2), ("日本", 4), ("e\u0301", 1), ("", 0)])
def test_width(text: str, expected: int):
    assert width(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ("a\x1b[2J", r"a\x1b[2J"), ("a\nb", r"a\nb"), ("\u202e", r"\u202e"), ("é", "é")],
)
def test_shown(text: str, expected: str):
    assert shown(text) == expected


def test_one_line():
    assert one_line(" a\n\x1b[31mb\t c\u2028d ") == "a [31mb c d"


@pytest.mark.parametrize(
    ("amount", "expected"), [(0, "0M"), (1023, "1023M"), (1024, "1.0G"), (1536, "1.5G"), (1048576, "1.0T")]
)
def test_megabytes(amount: int, expected: str):
    assert megabytes(amount) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "-"), ("", "-"), ({}, "-"), ([], "-"), (True, "yes"), (False, "no"), (0, "0"), ([1, "a"], "1, a")],
)
def test_plain(value: object, expected: str):
    assert plain(value) == expected


def test_fields_nest():
    record = {"id": "x", "metadata": {}, "status": {"state": "running"}, "steps": [{"action": "fetch", "message": ""}]}
    assert fields(record) == [
        "id:       x",
        "metadata: -",
        "status:",
        "  state: running",
        "steps:",
        "  - action:  fetch",
        "    message: -",
    ]
