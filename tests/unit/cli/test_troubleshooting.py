"""docs/troubleshooting.md speaks of texts that the code has, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXTS = re.findall(r"^### `(.*)`", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
PACKAGES = ("lochness", "lochness_controller", "lochness_node")
#: What other programs say, and methods that stand for all.
FOREIGN = {"connection refused", "GET", "POST"}


@pytest.fixture(scope="module")
def code() -> str:
    """The code with the pieces of a string that is written over several lines joined."""
    whole = "\n".join(path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", whole)
    return re.sub(r"\s+", " ", re.sub(r"\{[^{}\"]*\}", "\0", joined))


def pieces(text: str) -> list[str]:
    """The parts of a heading that are the code's own words."""
    found = re.split(r"\.\.\.+|: |; ", text)
    words = [re.sub(r"\b(GET|POST)\b", "", piece).strip(" :();,'") for piece in found]
    return [word for word in words if word and word not in FOREIGN]


@pytest.mark.parametrize("text", TEXTS)
def test_the_code_says_so(text: str, code: str):
    assert [piece for piece in pieces(text) if piece not in code] == []


def test_there_are_texts():
    assert len(TEXTS) > 30
