"""Networks and subnets: /networks, /subnets and the links between them."""

from __future__ import annotations

import pytest

UNKNOWN = "00000000-0000-4000-8000-000000000000"
RANGE = {"cidr": "10.2.0.0/24", "start": "10.2.0.10", "end": "10.2.0.20", "gateway": "10.2.0.1"}


def test_a_subnet_is_linked_and_unlinked_on_both_sides(api):
    network = api.made("/networks", {"metadata": {"name": "lan"}})
    first, second, third = (api.made("/subnets", RANGE)["id"] for _ in range(3))
    path = f"/networks/{network['id']}/subnets"
    assert api.get(path).json() == []
    assert api.put(f"{path}/{first}").json() == [first]
    assert api.put(f"{path}/{first}").json() == [first]
    assert api.patch(path, json=[second, third]).json() == sorted([first, second, third])
    assert api.get(f"/subnets/{first}").json()["network"] == network["id"]
    assert api.delete(f"{path}/{second}").json() == sorted([first, third])
    assert api.get(f"/subnets/{second}").json()["network"] == ""
    assert api.delete(f"{path}/{second}").status_code == 404


def test_a_subnet_belongs_to_one_network(api):
    one, other = (api.made("/networks", {})["id"] for _ in range(2))
    subnet = api.made("/subnets", {**RANGE, "network": one})["id"]
    answer = api.put(f"/networks/{other}/subnets/{subnet}")
    assert answer.status_code == 409
    assert answer.json()["reason"] == "in_other_network"
    assert api.get(f"/networks/{one}/subnets").json() == [subnet]
    assert api.get(f"/networks/{other}/subnets").json() == []


def test_a_subnet_that_names_a_network_is_linked_to_it(api, controller):
    one, other = (api.made("/networks", {})["id"] for _ in range(2))
    subnet = api.made("/subnets", {**RANGE, "network": one})
    assert api.get(f"/networks/{one}/subnets").json() == [subnet["id"]]
    moved = api.patch(f"/subnets/{subnet['id']}", json={"network": other})
    assert moved.json() == {**subnet, "network": other}
    assert api.get(f"/networks/{one}/subnets").json() == []
    assert api.get(f"/networks/{other}/subnets").json() == [subnet["id"]]
    assert api.patch(f"/subnets/{subnet['id']}", json={"network": ""}).json()["network"] == ""
    assert api.get(f"/networks/{other}/subnets").json() == []


def test_a_network_that_does_not_exist_is_404_and_changes_nothing(api):
    answer = api.post("/subnets", json={**RANGE, "network": UNKNOWN})
    assert (answer.status_code, answer.json()["field"]) == (404, "network")
    subnet = api.made("/subnets", RANGE)
    answer = api.patch(f"/subnets/{subnet['id']}", json={"network": UNKNOWN})
    assert (answer.status_code, answer.json()["field"]) == (404, "network")
    assert api.get(f"/subnets/{subnet['id']}").json() == subnet
    assert api.put(f"/networks/{UNKNOWN}/subnets/{subnet['id']}").status_code == 404


def test_a_network_with_subnets_is_not_removed(api):
    network = api.made("/networks", {})["id"]
    subnet = api.made("/subnets", {**RANGE, "network": network})["id"]
    answer = api.delete(f"/networks/{network}")
    assert (answer.status_code, answer.json()["reason"]) == (409, "has_subnets")
    assert api.delete(f"/subnets/{subnet}").status_code == 200
    assert api.get(f"/networks/{network}/subnets").json() == []
    assert api.delete(f"/networks/{network}").status_code == 200


def test_a_subnet_with_addresses_in_use_is_not_removed_and_an_unused_one_leaves_nothing(cluster):
    guest = cluster.running_guest()
    answer = cluster.api.delete(f"/subnets/{cluster.subnet}")
    assert (answer.status_code, answer.json()["reason"]) == (409, "has_guests")
    cluster.api.finished(cluster.api.delete(f"/guests/{guest['id']}"))
    assert cluster.api.delete(f"/subnets/{cluster.subnet}").status_code == 200
    assert cluster.keys_with(cluster.subnet) == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"cidr": ""}, "cidr"),
        ({"cidr": "10.2.0.0"}, "cidr"),
        ({"start": "10.3.0.1"}, "start"),
        ({"end": "10.2.0.9"}, "start"),
        ({"gateway": "nowhere"}, "gateway"),
    ],
)
def test_a_subnets_range_lies_inside_it(api, wrong, field):
    answer = api.post("/subnets", json={**RANGE, **wrong})
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_flavors_and_images_are_created_changed_and_removed(api):
    image = api.made("/images", {"source": "http://images.example/a.qcow2"})
    flavor = api.made("/flavors", {"image": image["id"], "memory": 512, "disk": 1024, "cpu": 2})
    assert list(flavor) == ["id", "image", "metadata", "memory", "disk", "cpu"]
    changed = api.patch(f"/flavors/{flavor['id']}", json={"cpu": 4}).json()
    assert changed == {**flavor, "cpu": 4}
    assert changed in api.get("/flavors").json()
    assert api.delete(f"/flavors/{flavor['id']}").json() == changed
    assert api.get(f"/flavors/{flavor['id']}").status_code == 404
    assert api.delete(f"/images/{image['id']}").json() == image


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/flavors", {"memory": 1, "cpu": 1}, "image"),
        ("/flavors", {"image": UNKNOWN, "cpu": 1}, "memory"),
        ("/flavors", {"image": UNKNOWN, "memory": 1, "cpu": 1.5}, "cpu"),
        ("/images", {}, "source"),
        ("/images", {"source": "ftp://x/y"}, "source"),
        ("/images", {"source": "http://x/y", "sha256": "abc"}, "sha256"),
    ],
)
def test_what_a_flavor_or_an_image_must_have(api, path, body, field):
    answer = api.post(path, json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
