"""The files in /etc/lochness as the packages bring them: they show every setting, each with its default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from lochness_controller.settings import ControllerSettings
from lochness_node.agent.settings import AgentSettings
from lochness_node.settings import GuestwatchSettings, HeartbeatSettings, NodeSettings, ResourcesSettings

SAMPLES = Path(__file__).parents[3] / "packaging"
NODE_TABLES: dict[str, type[msgspec.Struct]] = {
    "heartbeat": HeartbeatSettings,
    "resources": ResourcesSettings,
    "guestwatch": GuestwatchSettings,
    "agent": AgentSettings,
}


def uncommented(name: str) -> dict[str, object]:
    """The sample with its commented settings put in force."""
    text = (SAMPLES / f"{name}.example").read_text()
    return tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text))


def differing(kind: type[msgspec.Struct], shown: dict[str, object]) -> dict[str, tuple[object, object]]:
    """What is shown otherwise than `kind` has it, or is not shown; unknown settings among it."""
    defaults = msgspec.json.decode(msgspec.json.encode(kind()))
    shared = set() if kind in (NodeSettings, ControllerSettings) else set(NodeSettings.__struct_fields__)
    own = (defaults.keys() - shared) | (defaults.keys() & kind.__annotations__.keys())
    if kind is NodeSettings:
        own -= {"metrics_listen"}  # each daemon's table has its own
    return {
        name: (defaults.get(name), shown.get(name))
        for name in own | shown.keys()
        if name not in defaults or name not in shown or defaults[name] != shown[name]
    }


def test_the_controllers_sample_shows_the_defaults() -> None:
    assert differing(ControllerSettings, uncommented("controller.toml")) == {}


@pytest.mark.parametrize("table", sorted(NODE_TABLES))
def test_a_daemons_table_shows_the_defaults(table: str) -> None:
    shown = uncommented("node.toml")[table]
    assert isinstance(shown, dict)
    assert shown
    assert differing(NODE_TABLES[table], shown) == {}


def test_what_the_nodes_daemons_share_shows_the_defaults() -> None:
    shown = {name: value for name, value in uncommented("node.toml").items() if name not in NODE_TABLES}
    assert differing(NodeSettings, shown) == {}


@pytest.mark.parametrize("name", ["node.toml", "controller.toml"])
def test_nothing_is_set_by_the_sample_itself(name: str) -> None:
    values = tomllib.loads((SAMPLES / f"{name}.example").read_text())
    assert all(value == {} for value in values.values())
