"""lochness apply: what must be made and changed, nothing left to do afterwards, and what the file must not say."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest

from lochness.cli.apply_plan import RECORDS, Plan, decide_changes, difference, named
from lochness.cli.session import Kind
from lochness.errors import LochnessError
from tests.unit.cli.conftest import Lochness
from tests.unit.cli.fake_controller import FakeController

FILE = """
[flavor.small]
image = "debian12"
memory = 1024
cpu = 1

[image.debian12]
source = "https://images.example/debian12.qcow2"
sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

[subnet.lan-a]
network = "lan"
cidr = "10.0.0.0/24"
start = "10.0.0.10"
end = "10.0.0.99"

[network.lan]
metadata = { owner = "ops" }

[fwgroup.web]
rules = ["allow tcp 80-443", "allow tcp 22 from 10.0.0.5/8", "allow any from web"]

[vlan.100]
description = "office"

[vlangroup.office]
tags = [100, 101, 100]

[vlan.101]
"""


def plan_of(text: str, controller: FakeController, tags: dict[str, list[int]] | None = None) -> Plan:
    fresh = (f"00000000-0000-4000-8000-{number:012}" for number in itertools.count(1))
    observed = {kind: list(controller.objects[kind.path.strip("/")].values()) for kind in RECORDS}
    return decide_changes(tomllib.loads(text), observed, tags or {}, lambda: next(fresh))


def test_a_whole_cluster_is_made_and_then_nothing_is_left(
    lochness: Lochness, controller: FakeController, tmp_path: Path
):
    file = tmp_path / "cluster.toml"
    file.write_text(FILE)
    words = ("--server", controller.url, "apply", "-f", str(file))
    looked = lochness(*words, "--dry-run")
    assert (looked.status, looked.err) == (0, "")
    assert looked.out.splitlines() == [
        "+ network lan: metadata owner=ops",
        "+ subnet lan-a: network lan; cidr 10.0.0.0/24; start 10.0.0.10; end 10.0.0.99",
        f"+ image debian12: source https://images.example/debian12.qcow2; sha256 {'a' * 64}",
        "+ flavor small: image debian12; memory 1024; cpu 1",
        "+ fwgroup web: rules allow tcp 80-443, allow tcp 22 from 10.0.0.0/8, allow any from web",
        "+ vlan 100: description office",
        "+ vlan 101",
        "+ vlangroup office: tags 100,101",
        "= 0 as they should be",
    ]
    assert not any(controller.objects.values())
    done = lochness(*words, "--yes")
    assert (done.status, done.err) == (0, "lochness: 8 of 8 changes done\n")
    network = next(iter(controller.objects["networks"].values()))
    assert network["metadata"] == {"name": "lan", "owner": "ops"}
    assert next(iter(controller.objects["subnets"].values()))["network"] == network["id"]
    again = lochness(*words, "--yes")
    assert (again.status, again.out, again.err) == (0, "= 8 as they should be\n", "")


def test_only_what_differs_is_changed(lochness: Lochness, controller: FakeController, tmp_path: Path):
    file = tmp_path / "cluster.toml"
    file.write_text(FILE)
    words = ("--server", controller.url, "apply", "-f", str(file))
    assert lochness(*words, "--yes").status == 0
    other = controller.add("flavors", "large", image="x", memory=9)
    file.write_text(FILE.replace("1024", "2048").replace("[100, 101, 100]", "[101]").replace('"ops"', '"net"'))
    looked = lochness(*words, "--dry-run")
    assert looked.out.splitlines() == [
        "~ network lan: metadata owner=ops -> owner=net",
        "~ flavor small: memory 1024 -> 2048",
        "~ vlangroup office: tags 100,101 -> 101",
        "= 5 as they should be",
    ]
    before = {name: dict(flavor) for name, flavor in controller.objects["flavors"].items()}
    assert lochness(*words, "--yes", "-o", "id").status == 0
    after = controller.objects["flavors"]
    assert {id for id in after if after[id] != before[id]} == {id for id in after if id != other}
    assert lochness(*words, "--dry-run").out == "= 8 as they should be\n"


def test_it_does_not_ask_where_nobody_answers(lochness: Lochness, controller: FakeController, tmp_path: Path):
    file = tmp_path / "cluster.toml"
    file.write_text("[network.lan]\n")
    ended = lochness("--server", controller.url, "apply", "-f", str(file))
    assert (ended.status, ended.err) == (
        2, "lochness: nobody is there to be asked: say --yes to do it, --dry-run to only look\n",
    )  # fmt: skip
    assert controller.objects["networks"] == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = ", "{file} is not valid TOML: Invalid value (at end of document)"),
        (
            "[guest.web]",
            "{file}: unknown kind 'guest'; known: network, subnet, image, flavor, fwgroup, vlan, vlangroup",
        ),
        ("network = 5", "{file}: network must hold tables such as [network.NAME]"),
        ("[network.lan]\nmtu = 9", "{file}: network.lan: unknown field 'mtu'; known: metadata"),
        (
            "[network.lan.metadata]\nname = 'b'",
            "{file}: network.lan: metadata.name is the table's name and cannot be another",
        ),
        ("[flavor.s]\nimage = 'none'\nmemory = 1\ncpu = 1", "{file}: flavor.s: image 'none' does not exist"),
        ("[flavor.s]\nimage = 'i'\nmemory = 'a'", "{file}: flavor.s: image 'i' does not exist"),
        ("[network.twin]", "{file}: the name 'twin' is ambiguous, 2 networks have it: "),
        ("[vlan.4096]", "{file}: tag must be a number from 1 to 4095, got '4096'"),
        ("[vlangroup.a]\ntags = 5", "{file}: vlangroup.a: tags must be a list of VLAN tags"),
        ("[subnet.a]\ncidr = '10.0.0.0/24'\nstart = '10.0.0.1'", "{file}: subnet.a: end is required"),
        (
            "[fwgroup.a]\nrules = [5]",
            '{file}: fwgroup.a: rules must be a list of words such as "allow tcp 22 from 10.0.0.0/8"',
        ),
    ],
)
def test_a_file_that_is_wrong_changes_nothing(
    lochness: Lochness, controller: FakeController, tmp_path: Path, text: str, line: str
):
    controller.add("networks", "twin")
    controller.add("networks", "twin")
    file = tmp_path / "cluster.toml"
    file.write_text(f"[network.first]\n{text}" if text.startswith("[") else text)
    ended = lochness("--server", controller.url, "apply", "-f", str(file), "--yes")
    assert ended.status in (2, 4)
    assert ended.err.startswith("lochness: " + line.format(file=file)), ended
    assert ended.err.count("\n") == 1
    assert len(controller.objects["networks"]) == 2


def test_files_that_are_none(lochness: Lochness, controller: FakeController, tmp_path: Path):
    (tmp_path / "bytes").write_bytes(b"[network.\xff]\n")
    golden = {
        tmp_path / "bytes": f"{tmp_path}/bytes is not valid TOML: it is not UTF-8",
        tmp_path / "none": f"cannot read {tmp_path}/none: No such file or directory",
        tmp_path: f"cannot read {tmp_path}: Is a directory",
        Path("/dev/zero"): "/dev/zero holds more than 16 MB",
        Path("/proc/self/mem"): "cannot read /proc/self/mem: Input/output error",
    }
    for file, line in golden.items():
        ended = lochness("--server", controller.url, "apply", "-f", str(file), "--yes")
        assert (ended.status, ended.out, ended.err) == (2, "", f"lochness: {line}\n")


def test_one_refused_change_does_not_stop_the_others(lochness: Lochness, controller: FakeController, tmp_path: Path):
    file = tmp_path / "cluster.toml"
    file.write_text("[network.a.metadata]\nrefuse = 'yes'\n[network.b]\n")
    ended = lochness("--server", controller.url, "apply", "-f", str(file), "--yes")
    assert ended.status == 1
    assert ended.err == "lochness: network a: metadata.refuse is refused\nlochness: 1 of 2 changes done\n"


def test_the_plan_is_the_same_for_the_same(controller: FakeController):
    assert plan_of(FILE, controller) == plan_of(FILE, controller)
    plan = plan_of("[network.lan]", controller)
    assert difference(plan, named({}, plan)) == ["+ network lan", "= 0 as they should be"]
    assert Kind.NETWORK in RECORDS
    with pytest.raises(LochnessError):
        plan_of("[vlan.x]", controller)
