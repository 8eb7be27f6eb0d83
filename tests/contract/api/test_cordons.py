"""POST /hypervisors/{id}/cordon and /uncordon: no new guest comes to a cordoned hypervisor; those there stay."""

from __future__ import annotations

UNKNOWN = "00000000-0000-4000-8000-00000000dead"


def test_a_cordoned_hypervisor_gets_no_guest_until_it_is_opened(cluster):
    path = f"/hypervisors/{cluster.hypervisor}"
    answer = cluster.api.post(f"{path}/cordon", json={"reason": "a new disk"})
    assert answer.status_code == 200
    assert answer.json()["cordoned"] == "a new disk"
    assert cluster.api.get(path).json() == answer.json()
    assert answer.json() in cluster.api.get("/hypervisors").json()
    assert cluster.api.get(f"{path}/config").json()["cordoned"] == "a new disk"
    job = cluster.api.finished(cluster.create_guest())
    assert job["status"] == "error"
    assert "candidate_is_open removed " in job["error"]
    (said,) = [
        each
        for each in cluster.api.post("/placement", json={"flavor": cluster.flavor, "network": cluster.network}).json()[
            "hypervisors"
        ]
        if each["hypervisor"] == cluster.hypervisor
    ]
    assert (said["reason"], said["text"]) == ("cordoned", "cordoned: a new disk")
    answer = cluster.api.post(f"{path}/uncordon")
    assert answer.status_code == 200
    assert "cordoned" not in answer.json()
    assert answer.json() in cluster.api.get("/hypervisors").json()
    assert cluster.running_guest()["hypervisor"] == cluster.hypervisor


def test_a_cordon_leaves_the_guests_that_are_there(cluster):
    guest = cluster.running_guest()
    cluster.api.post(f"/hypervisors/{cluster.hypervisor}/cordon")
    assert cluster.api.finished(cluster.api.post(f"/guests/{guest['id']}/reboot"))["status"] == "done"


def test_a_cordon_needs_no_reason_and_twice_is_as_good_as_once(api):
    path = f"/hypervisors/{api.made('/hypervisors', {})['id']}"
    assert api.post(f"{path}/uncordon").status_code == 200
    assert api.post(f"{path}/cordon").json()["cordoned"] == "cordoned by an operator"
    assert api.post(f"{path}/cordon", json={"reason": "fans"}).json()["cordoned"] == "fans"
    assert "cordoned" not in api.post(f"{path}/uncordon").json()
    assert "cordoned" not in api.post(f"{path}/uncordon").json()


def test_a_cordon_with_a_mistake_changes_nothing(api):
    path = f"/hypervisors/{api.made('/hypervisors', {})['id']}"
    for body in ("{", "[]", '{"reason": 3}', '{"reason": "' + 1001 * "x" + '"}'):
        assert api.post(f"{path}/cordon", content=body).status_code == 400, body
    assert "cordoned" not in api.get(path).json()
    assert api.post(f"/hypervisors/{UNKNOWN}/cordon").status_code == 404
    assert api.post(f"/hypervisors/{UNKNOWN}/uncordon").status_code == 404
    assert api.post("/hypervisors/no-uuid/cordon").status_code == 400
