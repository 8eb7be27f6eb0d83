"""A guest's console, through the controller from its agent."""

from __future__ import annotations

import pytest

from lochness.ids import new_id


def test_the_end_of_a_console_or_what_came_since(cluster):
    id = cluster.running_guest()["id"]
    cluster.agent.consoles[id] = b"one\ntwo\n\xff\x1b[2J\n"
    answer = cluster.api.get(f"/guests/{id}/console")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text == "one\ntwo\n\ufffd\x1b[2J\n"
    assert answer.headers["X-Console-End"] == "14"
    part = cluster.api.get(f"/guests/{id}/console", params={"since": 4, "limit_bytes": 4})
    assert (part.text, part.headers["X-Console-End"]) == ("two\n", "8")


def test_a_guest_that_has_none_says_so(cluster):
    """The agent knows no consoles, or not the guest; the guest is not placed; it is not there."""
    id = cluster.running_guest()["id"]
    answer = cluster.api.get(f"/guests/{id}/console")
    assert (answer.status_code, answer.json()["message"]) == (404, f"console of guest '{id}' does not exist")
    cluster.agent.stop()
    answer = cluster.api.get(f"/guests/{id}/console")
    assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
    assert cluster.api.get(f"/guests/{new_id()}/console").status_code == 404
    waiting = cluster.api.post(
        "/guests", json={"flavor": cluster.flavor, "network": cluster.api.made("/networks", {})["id"]}
    )
    answer = cluster.api.get(f"/guests/{waiting.json()['id']}/console")
    assert (answer.status_code, answer.json()["reason"]) == (409, "not_placed")


@pytest.mark.parametrize("query", ["since=-1", "since=x", "limit_bytes=0", "limit_bytes=9999999"])
def test_a_place_that_is_none_is_400(cluster, query):
    answer = cluster.api.get(f"/guests/{new_id()}/console?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid")
