"""Does docs/settings.md have each setting, with type, default, unit, environment variable and flag as in the code?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
import typer

from lochness_controller import main as controller_main
from lochness_controller.settings import CONTROLLER_VARIABLES, ControllerSettings
from lochness_node import main as node_main
from lochness_node.agent.settings import AgentSettings
from lochness_node.settings import (
    NODE_VARIABLES,
    GuestwatchSettings,
    HeartbeatSettings,
    NodeSettings,
    ResourcesSettings,
)

PAGE = Path(__file__).parents[3] / "docs/settings.md"
NODE_FLAGS = frozenset(vars(node_main._parser().parse_args(["all"])))
CONTROLLER_FLAGS = frozenset(str(each.name) for each in typer.main.get_command(controller_main.app).params)
SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    "All daemons of a node": NodeSettings,
    "[heartbeat]": HeartbeatSettings,
    "[resources]": ResourcesSettings,
    "[guestwatch]": GuestwatchSettings,
    "[agent]": AgentSettings,
    "controller.toml": ControllerSettings,
}
TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
UNITS = {"_s": "s", "_mb": "MB", "_bytes": "bytes", "_bytes_max": "bytes", "_percent": "%", "_per_s": "1/s"}


def rows(section: str) -> list[str]:
    """The section's rows without their last column, as the code has them."""
    kind = SECTIONS[section]
    own = kind.__annotations__
    return [
        row(field, controller=kind is ControllerSettings)
        for field in msgspec.structs.fields(kind)
        if field.name in own or kind in (NodeSettings, ControllerSettings)
    ]


def row(field: msgspec.structs.FieldInfo, *, controller: bool) -> str:
    name = field.name
    flags = CONTROLLER_FLAGS if controller else NODE_FLAGS
    variables = CONTROLLER_VARIABLES if controller else {**NODE_VARIABLES, "listen": "LOCHNESS_LISTEN"}
    columns = (
        f"`{name}`",
        type_name(field.type),
        f"`{json.dumps(default_of(field))}`",
        unit_of(name),
        f"`{variables[name]}`" if name in variables else "",
        f"`--{name.replace('_', '-')}`" if name in flags else "",
    )
    return "| " + " | ".join(columns) + " | "


def type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f'`"{each}"`' for each in get_args(kind))
    return TYPES.get(kind) or "list of texts"


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def unit_of(name: str) -> str:
    return next((unit for end, unit in sorted(UNITS.items(), key=lambda each: -len(each[0])) if name.endswith(end)), "")


def sections(text: str) -> Iterable[tuple[str, str]]:
    for part in re.split(r"(?m)^## ", text)[1:]:
        title, _, rest = part.partition("\n")
        yield title.strip(), rest


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_has_each_setting_as_the_code_has_it(section):
    text = dict(sections(PAGE.read_text()))[section]
    told = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows(section) if not any(line.startswith(row) for line in told)] == [], "wrong or missing"
    assert len(told) == len(rows(section)), "the page has settings that the code has not"
    assert all(line.removesuffix(" |").rpartition(" | ")[2].strip() for line in told), "each has a meaning"
