"""Decisions are pure (DESIGN rule 1): what they import and call cannot know the time, chance, the store or the world.

`lint-imports` guards lochness.model and lochness.placement against detours over other modules; this guards every decide
module, wherever it lies, and what no import shows.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lochness", "lochness_node", "lochness_controller")
PURE_PACKAGES = ("lochness/model", "lochness/placement")

FORBIDDEN_IMPORTS = (
    *("time", "secrets", "logging", "threading", "subprocess", "socket", "asyncio", "tempfile", "shutil"),
    *(
        "structlog",
        "httpx",
        "etcd3",
        "grpc",
        "libvirt",
        "psutil",
        "litestar",
        "uvicorn",
        "httptools",
        "uvloop",
        "sdnotify",
    ),
    *("lochness.store", "lochness.log", "lochness.clock", "lochness_node.driver"),
)
#: What stores, drivers and clocks offer as types: a decision may name them, it cannot call what it is not given.
ALLOWED_IMPORTS = ("lochness.store.protocol", "lochness_node.driver.protocol")
FORBIDDEN_CALLS = {
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today"),
    *("os.environ", "os.getenv", "os.environ.get", "os.urandom", "uuid.uuid1", "open", "print", "input"),
}


def pure_files():
    decisions = [path for package in PACKAGES for path in (ROOT / package).rglob("decide*.py")]
    return sorted({*decisions, *(path for package in PURE_PACKAGES for path in (ROOT / package).rglob("*.py"))})


def is_within(name, modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def runtime_nodes(tree):
    """All nodes but those below `if TYPE_CHECKING:`: a type alone does nothing."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from runtime_nodes(node)


def is_chance(node):
    """Of the module random only a generator with a seed is allowed: the same seed, the same order."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "random.Random" and not node.args
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random"


def impurities(source):
    """What a module does that a decision must not, each as "line N: ..."."""
    found = []
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "random":
                found.append(f"line {node.lineno}: imports out of random, write random.Random(seed)")
        elif is_chance(node):
            found.append(f"line {node.lineno}: chance by {ast.unparse(node)}")
            continue
        elif isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in FORBIDDEN_CALLS:
            found.append(f"line {node.lineno}: uses {ast.unparse(node)}")
            continue
        else:
            continue
        found += [
            f"line {node.lineno}: imports {name}"
            for name in names
            if is_within(name, FORBIDDEN_IMPORTS) and not is_within(name, ALLOWED_IMPORTS)
        ]
    return found


@pytest.mark.parametrize("path", pure_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_decision_is_pure(path):
    assert impurities(path.read_text()) == []


def test_there_are_decisions_to_check():
    names = {str(path.relative_to(ROOT)) for path in pure_files()}
    assert any(name.startswith("lochness/model/") for name in names)
    assert any(name.startswith("lochness/placement/") for name in names)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import time", "line 1: imports time"),
        ("import os\nx = os.environ['A']", "line 2: uses os.environ"),
        ("def f():\n    from random import Random", "line 2: imports out of random, write random.Random(seed)"),
        ("import random\nrandom.shuffle([])", "line 2: chance by random.shuffle"),
        ("import random\nrandom.Random().shuffle([])", "line 2: chance by random.Random()"),
        ("from lochness_node.driver import open_driver", "line 1: imports lochness_node.driver.open_driver"),
        ("from lochness.store.memory import MemoryStore", "line 1: imports lochness.store.memory.MemoryStore"),
        ("from datetime import datetime\nx = datetime.now()", "line 2: uses datetime.now"),
        ("print(1)", "line 1: uses print"),
    ],
)
def test_the_check_finds(source, told):
    assert told in impurities(source)


def test_the_check_lets_types_pass():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from random import Random\n"
    assert impurities(source + "from lochness.store.protocol import Store\n") == []


def test_the_check_lets_a_seeded_generator_pass():
    assert impurities("import random\nrandom.Random(7).shuffle([])") == []
