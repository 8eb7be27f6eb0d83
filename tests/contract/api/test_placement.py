"""Asking about placement: POST /placement and GET /capacity. Neither changes anything."""

from __future__ import annotations

import pytest

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def mine(cluster, answer):
    """What the answer says of the cluster's own hypervisor; other tests have theirs in the same store."""
    return next(each for each in answer.json()["hypervisors"] if each["hypervisor"] == cluster.hypervisor)


def test_a_dry_run_says_where_the_guest_would_go(api, cluster):
    before = cluster.keys_with("")
    answer = api.post("/placement", json={"flavor": cluster.flavor, "network": cluster.network})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["is_placed"], found["hypervisor"], found["subnet"]) == (True, cluster.hypervisor, cluster.subnet)
    assert (found["bridge"], found["ip"], found["message"]) == ("br0", "10.9.0.10", "")
    assert [entry["function"] for entry in found["functions"]][:2] == ["candidate_is_alive", "candidate_is_open"]
    verdict = mine(cluster, answer)
    assert (verdict["rank"], verdict["free_memory"], verdict["guests"]) == (1, 8192, 0)
    assert cluster.keys_with("") == before


def test_a_dry_run_tells_why_not_with_numbers(api, cluster):
    large = api.made("/flavors", {"image": cluster.image, "memory": 9000, "cpu": 1})["id"]
    found = api.post("/placement", json={"flavor": large, "network": cluster.network})
    assert found.json()["is_placed"] is False
    assert "insufficient_memory: wanted 9000 MB, had 8192 MB" in found.json()["message"]
    assert mine(cluster, found)["text"] == "insufficient_memory: wanted 9000 MB, had 8192 MB"
    api.patch(f"/hypervisors/{cluster.hypervisor}/config", json={"cordoned": "new disks"})
    found = api.post("/placement", json={"flavor": cluster.flavor, "network": cluster.network})
    assert mine(cluster, found)["text"] == "cordoned: new disks"


def test_a_guest_that_exists_is_asked_about_by_its_id(api, cluster):
    guest = cluster.running_guest()
    found = api.post("/placement", json={"guest": guest["id"]}).json()
    assert (found["guest"], found["is_placed"], found["hypervisor"]) == (guest["id"], True, cluster.hypervisor)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "flavor"),
        ({"flavor": UNKNOWN}, 400, "network"),
        ({"flavor": "small", "network": UNKNOWN}, 400, "flavor"),
        ({"guest": 5}, 400, "guest"),
        ({"guest": UNKNOWN}, 404, ""),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(api, body, status, field):
    answer = api.post("/placement", json=body)
    assert (answer.status_code, answer.json().get("field", "")) == (status, field), answer.text


def test_a_flavor_that_does_not_exist_is_the_answer_of_a_dry_run(api, cluster):
    found = api.post("/placement", json={"flavor": UNKNOWN, "network": cluster.network}).json()
    assert (found["is_placed"], found["reason"]) == (False, "flavor_not_found")


def test_capacity_says_how_many_more_and_what_runs_out(api, cluster):
    where = {"flavor": cluster.flavor, "network": cluster.network}
    found = api.get("/capacity", params=where).json()
    assert (found["guests"], found["limited_by"], found["free_addresses"]) == (16, "memory", 90)
    assert mine(cluster, api.get("/capacity", params=where))["guests"] == 16
    cluster.running_guest()
    assert api.get("/capacity", params=where).json()["guests"] == 15
    api.patch(f"/hypervisors/{cluster.hypervisor}/config", json={"cordoned": "new disks"})
    found = api.get("/capacity", params=where).json()
    assert (found["guests"], found["limited_by"]) == (0, "hypervisors")
    assert found["refused"]["cordoned"] >= 1, "other tests cordon theirs in the same store"


def test_capacity_of_all_flavors_is_an_array(api, cluster):
    found = {each["flavor"]: each for each in api.get("/capacity", params={"network": cluster.network}).json()}
    assert found[cluster.flavor]["guests"] == 16
    assert "hypervisors" not in found[cluster.flavor]
    anywhere = {each["flavor"]: each for each in api.get("/capacity").json()}
    assert anywhere[cluster.flavor]["guests"] >= 16


@pytest.mark.parametrize(("query", "field"), [({"flavor": UNKNOWN}, "flavor"), ({"network": UNKNOWN}, "network")])
def test_capacity_of_what_does_not_exist_is_404(api, cluster, query, field):
    answer = api.get("/capacity", params={"flavor": cluster.flavor, **query})
    assert (answer.status_code, answer.json()["field"]) == (404, field)


def test_capacity_of_nonsense_is_400(api):
    assert api.get("/capacity", params={"flavor": "small"}).json()["field"] == "flavor"
