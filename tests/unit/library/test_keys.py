"""docs/keys.md and lochness/keys.py say the same."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from lochness import keys

TABLE = Path(__file__).parents[3] / "docs" / "keys.md"

#: The builders' parameters, spelled as the table does. `id` of a job or an object is ID.
PLACEHOLDERS = {
    "id": "ID",
    "key": "KEY",
    "subnet_id": "SUBNET",
    "guest_id": "GUEST",
    "ip": "IP",
    "digest": "DIGEST",
    "tag": "TAG",
    "group_id": "GROUP",
    "name": "NAME",
}

#: Functions of the module that build no key.
NOT_BUILDERS = {"last_part", "object_id"}


def documented() -> set[str]:
    rows = (line for line in TABLE.read_text().splitlines() if line.startswith("| `lochness/"))
    return {match[1] for row in rows if (match := re.match(r"\| `([^`]+)` \|", row))}


def builders():
    for name, function in inspect.getmembers(keys, inspect.isfunction):
        if name not in NOT_BUILDERS:
            parameters = inspect.signature(function).parameters
            yield name, function(*(PLACEHOLDERS[parameter] for parameter in parameters))


def test_every_key_that_can_be_built_is_documented_and_every_documented_one_can_be_built():
    built = {key for _, key in builders() if not key.endswith("/")}
    assert built == documented()


@pytest.mark.parametrize(("name", "prefix"), [(name, key) for name, key in builders() if key.endswith("/")])
def test_every_prefix_covers_a_documented_key(name, prefix):
    assert any(key.startswith(prefix) for key in documented()), name


def test_the_prefixes_are_those_of_the_original():
    assert keys.CONFIG_PATH == "lochness/config/"
    assert keys.FLAVOR_PATH == "lochness/flavors/"
    assert keys.FWGROUP_PATH == "lochness/fwgroups/"
    assert keys.GUEST_PATH == "lochness/guests/"
    assert keys.HYPERVISOR_PATH == "lochness/hypervisors/"
    assert keys.NETWORK_PATH == "lochness/networks/"
    assert keys.SUBNET_PATH == "lochness/subnets/"
    assert keys.VLAN_PATH == "lochness/vlans/"
    assert keys.VLANGROUP_PATH == "lochness/vlangroups/"
    assert keys.JOB_PATH == "lochness/jobs/"
    assert keys.AGENT_PORT == 8080


def test_a_key_is_taken_apart_as_it_was_built():
    key = keys.hypervisor_guest("H", "G")
    assert keys.object_id(key, keys.HYPERVISOR_PATH) == ("H", "guests/G")
    assert keys.last_part(key) == "G"


def test_no_other_module_spells_a_key():
    root = Path(__file__).parents[3]
    spelled = re.compile(r"""["']lochness/(?!py)[a-z]+/""")
    packages = ("lochness", "lochness_node", "lochness_controller")
    sources = [path for package in packages for path in (root / package).rglob("*.py") if path.name != "keys.py"]
    offenders = [
        f"{path.relative_to(root)}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if spelled.search(line)
    ]
    assert offenders == []
