"""The files in /etc/lochness as the packages bring them: every setting shown exists, and with the default shown."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from lochness_controller.settings import ControllerSettings
from lochness_node.agent.settings import AgentSettings
from lochness_node.settings import GuestwatchSettings, HeartbeatSettings, NodeSettings, ResourcesSettings

SAMPLES = Path(__file__).parents[3] / "packaging/deb"
NODE_TABLES: dict[str, type[msgspec.Struct]] = {
    "heartbeat": HeartbeatSettings,
    "resources": ResourcesSettings,
    "guestwatch": GuestwatchSettings,
    "agent": AgentSettings,
}


def uncommented(name: str) -> dict[str, object]:
    """The sample with its commented settings put in force."""
    text = (SAMPLES / name).read_text()
    return tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text))


def differing(kind: type[msgspec.Struct], shown: dict[str, object]) -> dict[str, object]:
    """What is shown otherwise than `kind` has it, unknown settings among it."""
    defaults = msgspec.json.decode(msgspec.json.encode(kind()))
    return {name: value for name, value in shown.items() if name not in defaults or defaults[name] != value}


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
    values = tomllib.loads((SAMPLES / name).read_text())
    assert all(value == {} for value in values.values())
