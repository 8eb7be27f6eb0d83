"""Every field that the code logs with an event stands in that event's row of docs/events.md."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from lochness import events

CHECKOUT = Path(__file__).parents[3]
PACKAGES = ("lochness", "lochness_node", "lochness_controller")
LEVELS = {"debug", "info", "warning", "error", "exception"}
#: Of every entry, or said once for all of a kind at the head of docs/events.md.
EVERYWHERE = {"component", "exc_info", "guest", "guest_id", "job", "job_id", "request", "request_id", "action"}


def logged() -> dict[str, set[str]]:
    """Event -> the fields that some call names. Fields bound to a logger or unpacked from a dict are not seen."""
    fields: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                    for name in events_of(node):
                        fields[name] |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return fields


def events_of(call: ast.Call) -> list[str]:
    """The events that the call's first argument may be: one, or one of two."""
    return [
        getattr(events, found.attr)
        for argument in call.args[:1]
        for found in ast.walk(argument)
        if isinstance(found, ast.Attribute) and isinstance(found.value, ast.Name) and found.value.id == "events"
    ]


def documented() -> dict[str, set[str]]:
    fields: dict[str, set[str]] = {}
    for row in (CHECKOUT / "docs" / "events.md").read_text().splitlines():
        if row.startswith("| `"):
            names, _, words = [cell.strip() for cell in row.split("|")][1:4]
            for name in re.findall(r"`([^`]+)`", names):
                fields[name] = set(re.findall(r"[a-z_]+", words))
    return fields


def test_every_logged_field_is_documented():
    rows = documented()
    missing = {name: lacking for name, used in logged().items() if (lacking := used - EVERYWHERE - rows[name])}
    assert not missing


def test_the_code_is_looked_at():
    assert len(logged()) > 50
    assert "lease_left_s" in logged()[events.HEARTBEAT_RENEW_FAILED]
