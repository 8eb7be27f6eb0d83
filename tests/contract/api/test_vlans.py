"""WIRE.md section 4: /vlans/tags and /vlans/groups."""

from __future__ import annotations

import itertools

import pytest

UNKNOWN = "00000000-0000-4000-8000-000000000000"

#: Each test has tags of its own: the controller is one for all.
_TAGS = itertools.count(100)


@pytest.fixture
def tag(api):
    number = next(_TAGS)
    api.made("/vlans/tags", {"tag": number, "description": "storage"})
    return number


@pytest.fixture
def group(api):
    return api.made("/vlans/groups", {"description": "tenants"})["id"]


def test_a_tag_is_created_read_changed_and_removed(api):
    number = next(_TAGS)
    answer = api.post("/vlans/tags", json={"tag": number, "description": "storage"})
    assert answer.status_code == 201
    assert answer.text == f'{{"tag":{number},"description":"storage"}}\n'
    path = f"/vlans/tags/{number}"
    assert api.get(path).text == answer.text
    assert answer.json() in api.get("/vlans/tags").json()
    changed = api.patch(path, json={"description": "backup"})
    assert (changed.status_code, changed.json()) == (200, {"tag": number, "description": "backup"})
    removed = api.delete(path)
    assert (removed.status_code, removed.json()) == (200, changed.json())
    assert api.get(path).status_code == 404


def test_a_tag_that_exists_is_409_and_its_number_never_changes(api, tag):
    answer = api.post("/vlans/tags", json={"tag": tag})
    assert (answer.status_code, answer.json()["reason"]) == (409, "already_exists")
    answer = api.patch(f"/vlans/tags/{tag}", json={"tag": tag + 1000})
    assert (answer.status_code, answer.json()["field"]) == (400, "tag")
    assert api.get(f"/vlans/tags/{tag}").json() == {"tag": tag, "description": "storage"}


@pytest.mark.parametrize("tag", [0, 4096, -1, "12", 1.5, None, True], ids=str)
def test_a_tag_is_a_number_from_1_to_4095(api, tag):
    answer = api.post("/vlans/tags", json={"tag": tag})
    assert (answer.status_code, answer.json()["field"]) == (400, "tag")


@pytest.mark.parametrize("tag", ["0", "4096", "x", "1e2", "٣"])
def test_a_path_with_no_tag_is_400(api, tag):
    assert api.get(f"/vlans/tags/{tag}").status_code == 400
    assert api.get("/vlans/tags/4095").status_code == 404


def test_a_post_without_a_tag_is_400(api):
    answer = api.post("/vlans/tags", json={"description": "none"})
    assert (answer.status_code, answer.json()["field"]) == (400, "tag")


def test_a_group_is_created_read_changed_and_removed(api):
    answer = api.post("/vlans/groups", json={"description": "tenants", "metadata": {"a": "1"}})
    assert answer.status_code == 201
    made = answer.json()
    assert list(made) == ["id", "description", "metadata"]
    path = f"/vlans/groups/{made['id'].upper()}"
    assert api.get(path).json() == made
    assert made in api.get("/vlans/groups").json()
    assert api.delete(path).json() == made
    assert api.get(path).status_code == 404


def test_a_groups_metadata_is_merged(api):
    made = api.made("/vlans/groups", {"metadata": {"a": "1", "b": "2"}})
    path = f"/vlans/groups/{made['id']}"
    changed = api.patch(path, json={"metadata": {"b": "3", "c": "4"}}).json()
    assert changed == {**made, "metadata": {"a": "1", "b": "3", "c": "4"}}
    changed = api.patch(path, json={"description": "x", "metadata": {"a": None}}).json()
    assert changed == {**made, "description": "x", "metadata": {"b": "3", "c": "4"}}
    assert api.patch(path, json={"metadata": {"a": 1}}).status_code == 400
    assert api.get(path).json() == changed


def test_a_list_is_set_as_a_whole_from_either_side(api, group):
    first, second, third = (api.made("/vlans/tags", {"tag": next(_TAGS)})["tag"] for _ in range(3))
    path = f"/vlans/groups/{group}/tags"
    assert api.get(path).json() == []
    assert api.post(path, json=[third, first, first, second]).json() == [first, second, third]
    assert api.get(f"/vlans/tags/{first}/groups").json() == [group]
    assert api.post(path, json=[second]).json() == [second]
    assert api.get(f"/vlans/tags/{first}/groups").json() == []
    assert api.post(f"/vlans/tags/{first}/groups", json=[group.upper(), group]).json() == [group]
    for _ in range(2):
        assert api.post(path, json=[first, second]).json() == [first, second]
    assert api.post(path, json=[]).json() == []


def test_who_is_removed_leaves_the_others_lists(api, tag, group):
    api.post(f"/vlans/groups/{group}/tags", json=[tag])
    assert api.delete(f"/vlans/tags/{tag}").status_code == 200
    assert api.get(f"/vlans/groups/{group}/tags").json() == []
    other = api.made("/vlans/tags", {"tag": next(_TAGS)})["tag"]
    api.post(f"/vlans/groups/{group}/tags", json=[other])
    assert api.delete(f"/vlans/groups/{group}").status_code == 200
    assert api.get(f"/vlans/tags/{other}/groups").json() == []


def test_a_list_that_names_something_unknown_changes_nothing(api, tag, group):
    api.post(f"/vlans/groups/{group}/tags", json=[tag])
    answer = api.post(f"/vlans/groups/{group}/tags", json=[4094])
    assert (answer.status_code, answer.json()["id"]) == (404, "4094")
    answer = api.post(f"/vlans/tags/{tag}/groups", json=[UNKNOWN])
    assert (answer.status_code, answer.json()["id"]) == (404, UNKNOWN)
    bodies: list[object] = [[0], ["1"], {}, [None], 7]
    for body in bodies:
        assert api.post(f"/vlans/groups/{group}/tags", json=body).status_code == 400, body
    assert api.post(f"/vlans/tags/{tag}/groups", json=["nobody"]).status_code == 400
    assert api.get(f"/vlans/groups/{group}/tags").json() == [tag]


def test_lists_of_something_unknown_are_404(api):
    assert api.get("/vlans/tags/4093/groups").status_code == 404
    assert api.post("/vlans/tags/4093/groups", json=[]).status_code == 404
    assert api.get(f"/vlans/groups/{UNKNOWN}/tags").status_code == 404
    assert api.post(f"/vlans/groups/{UNKNOWN}/tags", json=[]).status_code == 404
