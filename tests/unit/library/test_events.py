"""docs/events.md and lochness/events.py name the same events, in the form that they are to have."""

from __future__ import annotations

import re
from pathlib import Path

from lochness import events

NAMES = {value for name, value in vars(events).items() if name.isupper()}


def test_every_event_is_documented_and_every_documented_one_exists():
    table = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert documented == NAMES


def test_a_name_is_dotted_and_stands_once():
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in NAMES)
    assert len(NAMES) == sum(name.isupper() for name in vars(events))
