"""WIRE.md section 5: /flavors, /images, /fwgroups and /config, with the conventions of section 1."""

from __future__ import annotations

import pytest

IMAGE = "289120e4-ed12-431d-8d18-48f8a94bb05a"
RULE = {"source": "10.0.0.0/8", "group": "", "portStart": 80, "portEnd": 443, "protocol": "tcp", "action": "allow"}


@pytest.mark.parametrize(
    ("path", "body", "change"),
    [
        ("/flavors", {"image": IMAGE, "memory": 512, "disk": 1024, "cpu": 1}, {"memory": 1024}),
        ("/images", {"source": "http://images.example/a.qcow2"}, {"sha256": "ab" * 32}),
        ("/fwgroups", {"rules": [RULE]}, {"rules": [{**RULE, "portStart": 443}]}),
        ("/networks", {}, {"metadata": {"name": "lan"}}),
    ],
)
def test_a_record_is_created_listed_read_changed_and_removed(api, path, body, change):
    made = api.made(path, {"metadata": {"a": "1"}, **body})
    own = f"{path}/{made['id']}"
    assert api.get(own).json() == made
    assert made in api.get(path).json()
    changed = api.patch(own, json=change).json()
    assert changed == {**made, **change}
    assert api.get(own).json() == changed
    assert api.delete(own).json() == changed
    assert api.get(own).status_code == 404
    assert api.delete(own).status_code == 404


def test_a_rule_without_a_source_has_none_in_its_json(api):
    rule = {name: value for name, value in RULE.items() if name != "source"}
    made = api.made("/fwgroups", {"rules": [rule, RULE]})
    assert made["rules"] == [rule, RULE]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"portStart": 70_000, "portEnd": 70_000}, "rules[0].portStart"),
        ({"portStart": 5, "portEnd": 4}, "rules[0].portStart"),
        ({"portStart": "x"}, "rules[0].portStart"),
        ({"source": "10.0.0.300/8"}, "source"),
        ({"group": "not-an-id"}, "group"),
    ],
)
def test_a_rule_that_makes_no_sense_is_400(api, rule, field):
    answer = api.post("/fwgroups", json={"rules": [{**RULE, **rule}]})
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_the_clusters_settings_are_handled_as_a_hypervisors_are(api):
    assert (
        api.patch("/config", json={"bar": "x", "deep/key": "1"}).json().items() >= {"bar": "x", "deep/key": "1"}.items()
    )
    changed = api.patch("/config", json={"bar": "", "foobar": "asdf"}).json()
    assert "bar" not in changed
    assert changed.items() >= {"foobar": "asdf", "deep/key": "1"}.items()
    assert api.get("/config").json() == changed
    bodies: list[object] = [{"": "x"}, {"/": "x"}, {"a": 1}, [], "x"]
    for body in bodies:
        assert api.patch("/config", json=body).status_code == 400, body
    assert api.get("/config").json() == changed
