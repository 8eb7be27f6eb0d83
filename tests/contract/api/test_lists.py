"""Filters and pages on lists, and revisions on records: ETag and If-Match."""

from __future__ import annotations

import pytest

from lochness import keys
from lochness.model.guest import GuestStatus
from lochness.store.protocol import Put


@pytest.fixture
def guests(cluster):
    """Three guests on one hypervisor, in the list's order."""
    made = [cluster.running_guest(metadata={"name": f"web{number}", "tier.x": "a"}) for number in range(3)]
    return sorted(made, key=lambda guest: guest["id"])


def test_a_list_is_filtered_by_fields_and_their_members(cluster, guests):
    api = cluster.api
    here = {"hypervisor": cluster.hypervisor}
    answer = api.get("/guests", params=here)
    assert answer.json() == guests
    assert answer.headers["x-total-count"] == "3"
    assert "link" not in answer.headers
    second = guests[1]
    assert api.get("/guests", params={**here, "metadata.name": second["metadata"]["name"]}).json() == [second]
    assert api.get("/guests", params={**here, "metadata.tier.x": "a"}).json() == guests
    assert api.get("/guests", params={**here, "metadata.name": "nobody"}).json() == []
    assert api.get("/guests", params={**here, "power": "stopped"}).json() == []
    seen = GuestStatus(state="running", hypervisor=cluster.hypervisor)
    cluster.store.commit((), (Put(keys.guest_status(second["id"]), seen.to_json()),))
    found = api.get("/guests", params={**here, "status.state": "running"}).json()
    assert [guest["id"] for guest in found] == [second["id"]]
    assert api.get("/hypervisors", params={"id": cluster.hypervisor, "alive": "true"}).json()[0]["alive"] is True
    assert api.get("/hypervisors", params={"id": cluster.hypervisor, "alive": "false"}).json() == []
    flavors = api.get("/flavors", params={"id": cluster.flavor, "memory": "512"}).json()
    assert [flavor["id"] for flavor in flavors] == [cluster.flavor]


def test_a_list_is_read_in_pages_by_its_links(cluster, guests):
    api, found, path = cluster.api, [], f"/guests?hypervisor={cluster.hypervisor}&limit=2"
    pages = 0
    while path:
        answer = api.get(path)
        assert answer.headers["x-total-count"] == "3"
        found += answer.json()
        pages += 1
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert found == guests
    assert pages == 2


def test_pages_of_tags_follow_their_numbers(api):
    tags = [3001, 3009, 3010]
    for tag in tags:
        api.made("/vlans/tags", {"tag": tag})
    page = api.get("/vlans/tags", params={"after": "3000", "limit": "2"})
    assert [vlan["tag"] for vlan in page.json()] == tags[:2]
    assert api.get(page.links["next"]["url"]).json()[0]["tag"] == 3010


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"colour": "blue"}, "colour"),
        ({"limit": "0"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": "9" * 30}, "limit"),
        ([("id", "a"), ("id", "b")], "id"),
    ],
)
@pytest.mark.parametrize("path", ["/guests", "/hypervisors", "/networks"])
def test_a_query_that_is_not_understood_is_400(api, path, query, field):
    answer = api.get(path, params=query)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("path", ["/hypervisors", "/networks", "/vlans/groups"])
def test_a_record_is_changed_and_removed_only_as_it_was_seen(api, path):
    made = api.post(path, json={})
    own = f"{path}/{made.json()['id']}"
    seen = made.headers["etag"]
    assert api.get(own).headers["etag"] == seen
    changed = api.patch(own, json={"metadata": {"a": "1"}}, headers={"If-Match": seen})
    assert changed.status_code == 200
    assert changed.headers["etag"] != seen
    for method, body in (("PATCH", {"json": {"metadata": {"a": "2"}}}), ("DELETE", {})):
        answer = api.request(method, own, headers={"If-Match": seen}, **body)
        assert (answer.status_code, answer.json()["reason"]) == (412, "precondition_failed")
    assert api.get(own).json() == changed.json()
    now = api.get(own).headers["etag"]
    assert api.delete(own, headers={"If-Match": f"{seen}, {now}"}).status_code == 200


def test_a_guest_is_acted_on_only_as_it_was_seen(cluster):
    guest = cluster.running_guest()
    path = f"/guests/{guest['id']}"
    seen = cluster.api.get(path).headers["etag"]
    cluster.api.patch(path, json={"metadata": {"a": "1"}})
    stale = {"If-Match": seen}
    for answer in (
        cluster.api.patch(path, json={"metadata": {}}, headers=stale),
        cluster.api.post(f"{path}/poweroff", headers=stale),
        cluster.api.delete(path, headers=stale),
    ):
        assert answer.status_code == 412
    assert cluster.api.get(path).json()["power"] == "running"
    assert cluster.api.post(f"{path}/poweroff", headers={"If-Match": "*"}).status_code == 202


def test_what_has_no_revision_refuses_if_match(api):
    made = api.made("/hypervisors", {})
    answer = api.patch(f"/hypervisors/{made['id']}/config", json={"a": "b"}, headers={"If-Match": '"1"'})
    assert (answer.status_code, answer.json()["reason"]) == (412, "precondition_failed")
    assert api.get(f"/hypervisors/{made['id']}/config").json() == {}
