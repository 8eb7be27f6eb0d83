"""Every error text of the command line is one that a test asserts on: collected from the code, not from memory."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lochness.cli

SOURCES = sorted(Path(lochness.cli.__path__[0]).glob("*.py"))
ROOT = Path(__file__).parents[2]
GOLDEN = [
    *(file for file in sorted((ROOT / "unit/cli").glob("test_*.py")) if file != Path(__file__)),
    *sorted((ROOT / "process").glob("test_cli_*.py")),
    ROOT / "contract/api/test_command_line.py",
]
#: What stands for a value in a text of a test that has one computed.
HOLE = "<value>"


def called(call: ast.Call) -> str:
    """The name of what is called: "say", "ValidationError", "write"."""
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


def told(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions whose text a person is told when something is wrong."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            is_stderr = called(node) == "write" and "stderr" in ast.dump(node.func)
            is_error = called(node).endswith("Error") and called(node) not in vars(builtins)
            if called(node) in ("say", "one_line") or is_error or is_stderr:
                yield node.args[0]
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute) and target.attr == "message" for target in targets):
                yield node.value


def pieces(text: ast.expr) -> list[str]:
    """The fixed parts of a text, in order, those between which a value stands; none when it is all value."""
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return [
        part.value.removeprefix("lochness: ").strip(" :\n")
        for part in parts
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.strip(" :\n")
    ]


def texts() -> list[tuple[str, list[str]]]:
    """Where a text stands, and its fixed parts."""
    found = []
    for source in SOURCES:
        for text in told(ast.parse(source.read_text())):
            parts = [part for part in pieces(text) if re.search(r"[a-z]{2}", part)]
            if parts:
                found.append((f"{source.stem}:{text.lineno}", parts))
    return found


def asserted() -> list[str]:
    """Every string of the tests, values in it as `HOLE`."""
    found = []
    for file in GOLDEN:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                found.append(node.value if isinstance(node.value, str) else node.value.decode(errors="replace"))
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
                )
    return found


@pytest.fixture(scope="module")
def golden() -> list[str]:
    return asserted()


@pytest.mark.parametrize(("where", "parts"), texts())
def test_a_test_asserts_on_it(where: str, parts: list[str], golden: list[str]):
    wanted = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    assert any(wanted.search(text) for text in golden), f"{where}: no test has {' ... '.join(parts)!r}"


def test_texts_are_found_where_they_are_told():
    found = dict(texts())
    assert len(found) > 60
    places = {where.partition(":")[0] for where in found}
    assert {"main", "session", "contexts", "apply", "apply_plan", "collection", "fsck", "backup", "token"} <= places
