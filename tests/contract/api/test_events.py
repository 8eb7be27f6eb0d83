"""WIRE.md section 5: /events, server-sent, resumable from a revision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import httpx
import pytest

from lochness import keys
from lochness.store.connect import open_store
from lochness.store.protocol import Delete, Key, Put
from lochness_controller.api import follow
from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, RunningController

SIGN_LIMIT_S: Final = follow.KEEP_ALIVE_S - 3


class Events:
    """What a stream tells, one event after the other."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()
        self.last_id = ""

    def next(self) -> tuple[str, dict[str, Any]]:
        """The next event's type and data."""
        kind, data = "", ""
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
            elif name == "id":
                self.last_id = value
            elif not line and data:
                return kind, json.loads(data)
        raise AssertionError("the stream has ended")

    def change(self) -> dict[str, Any]:
        """The next change, past signs of life."""
        while True:
            kind, data = self.next()
            if kind not in ("ready", "alive"):
                assert kind == data["kind"]
                return data

    def changes_until(self, revision: int) -> list[dict[str, Any]]:
        """All changes up to and with the first of `revision` or later."""
        found: list[dict[str, Any]] = []
        while not found or found[-1]["revision"] < revision:
            found.append(self.change())
        return found


@contextmanager
def following(
    url: str, *, last_id: str = "", since: str | None = None, kind: str = "", limit_s: float = 20
) -> Iterator[Events]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    query = {name: value for name, value in (("since", since), ("kind", kind)) if value}
    with (
        httpx.Client(trust_env=False, timeout=limit_s) as client,
        client.stream("GET", f"{url}/events", params=query, headers=headers) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Events(answer)


def revision_of(controller) -> int:
    revision: int = controller.store.read(Key(keys.ROOT)).revision
    return revision


def test_a_stream_begins_with_where_it_stands_and_tells_what_happens(controller, api):
    with following(controller.url, kind="network") as events:
        kind, data = events.next()
        assert kind == "ready"
        assert events.last_id == str(data["revision"])
        made = api.made("/networks", {"metadata": {"name": "lan"}})
        data = events.change()
        assert {name: data[name] for name in ("kind", "id", "part", "action", "value")} == {
            "kind": "network",
            "id": made["id"],
            "part": "metadata",
            "action": "set",
            "value": made,
        }
        assert events.last_id == str(data["revision"])
        api.delete(f"/networks/{made['id']}")
        data = events.change()
        assert (data["action"], data["id"], data["value"]) == ("gone", made["id"], None)


def test_a_stream_is_resumed_from_a_revision_without_a_gap_or_a_repetition(controller, cluster):
    before = revision_of(controller)
    guests = [cluster.running_guest()["id"] for _ in range(3)]
    after = revision_of(controller)
    with following(controller.url, since=str(before)) as events:
        whole = events.changes_until(after)
    assert {change["id"] for change in whole if change["part"] == "power"} >= set(guests)
    assert [change["revision"] for change in whole] == sorted(change["revision"] for change in whole)
    some = whole[len(whole) // 2]["revision"]
    either_way: list[dict[str, Any]] = [{"last_id": str(some)}, {"since": str(some)}]
    for resumed in either_way:
        with following(controller.url, **resumed) as events:
            assert events.changes_until(after) == [change for change in whole if change["revision"] > some]


@pytest.mark.parametrize("is_another", [False, True])
def test_a_resumed_stream_says_at_once_that_it_has_told_all_there_was(controller, is_another):
    """The last write is of no kind that is told of: no event says that the stream has come to it."""
    before = revision_of(controller)
    controller.store.commit((), (Put(keys.config("told"), b"x"),))
    controller.store.commit((), (Put(f"{keys.ROOT}of-no-kind", b"x"),))
    controller.store.commit((), (Delete(f"{keys.ROOT}of-no-kind"),))  # the store is other tests' too
    after = revision_of(controller)
    with ExitStack() as stack:
        url = stack.enter_context(another(controller.settings.etcd)).url if is_another else controller.url
        # A read's limit below that between two signs of life: the one that is waited for is not one of those.
        events = stack.enter_context(following(url, limit_s=SIGN_LIMIT_S, since=str(before), kind="config"))
        assert events.next() == ("ready", {"revision": before})
        assert events.change()["value"] == "x"
        kind, data = events.next()
        assert kind == "alive"
        assert data["revision"] >= after


def test_only_the_last_change_of_a_revision_has_the_id(controller, cluster):
    before = revision_of(controller)
    answer = cluster.create_guest()
    cluster.api.finished(answer)
    with following(controller.url, since=str(before)) as events:
        events.next()
        seen: list[tuple[int, str]] = []
        while len(seen) < 3:
            data = events.change()
            seen.append((data["revision"], events.last_id))
    created = seen[0][0]
    assert [revision for revision, _ in seen] == [created] * 3  # guest, power, job: one transaction
    assert [id for _, id in seen] == [str(before), str(before), str(created)]


@contextmanager
def another(etcd_url: str) -> Iterator[RunningController]:
    """A controller of its own that has seen the store."""
    running = RunningController(etcd_url)
    try:
        with Api(running.url) as api:
            wait_until(lambda: api.get("/readyz").status_code == 200, limit_s=20, what="a controller that is ready")
            api.get("/guests")
        yield running
    finally:
        running.stop()


def test_older_than_the_window_is_read_from_the_stores_history(controller):
    """A controller that has begun after it happened tells it all the same."""
    before = revision_of(controller)
    for name in ("a", "b"):
        controller.store.commit((), (Put(keys.config(f"history/{name}"), name.encode()),))
    with (
        another(controller.settings.etcd) as second,
        following(second.url, since=str(before), kind="config") as events,
    ):
        # Who is cut off after this resumes from it, and must be told all that follows.
        assert events.next() == ("ready", {"revision": before})
        assert events.last_id == str(before)
        assert [events.change()["value"] for _ in range(2)] == ["a", "b"]
        controller.store.commit((), (Put(keys.config("history/c"), b"c"),))
        assert events.change()["value"] == "c"


def test_a_revision_that_the_store_has_forgotten_is_410_from_a_controller_that_did_not_see_it(own_etcd):
    with open_store(own_etcd.url) as store:
        for number in range(3):
            store.commit((), (Put(keys.config("x"), str(number).encode()),))
        own_etcd.request("/v3/kv/compaction", {"revision": store.read(Key(keys.ROOT)).revision})
    with another(own_etcd.url) as running, Api(running.url) as api:
        answer = api.get("/events", params={"since": "1"})
        assert (answer.status_code, answer.json()["reason"]) == (410, "compacted")


def test_a_revision_that_is_yet_to_come_is_410(controller, api):
    answer = api.get("/events", params={"since": str(revision_of(controller) + 1000)})
    assert (answer.status_code, answer.json()["reason"]) == (410, "compacted")


@pytest.mark.parametrize("query", [{"since": "-1"}, {"since": "x"}, {"kind": "guest,ghost"}, {"since": "9" * 30}])
def test_a_request_that_makes_no_sense_is_400(api, query):
    assert api.get("/events", params=query).status_code == 400
    assert api.get("/events", headers={"Last-Event-ID": "yesterday"}).status_code == 400


def test_only_so_many_follow(controller):
    with httpx.Client(trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None)) as client:
        streams = []
        try:
            for _ in range(follow.LISTENERS_MAX):
                stream = client.send(client.build_request("GET", f"{controller.url}/events"), stream=True)
                streams.append(stream)
                assert stream.status_code == 200
            answer = client.get(f"{controller.url}/events")
            assert (answer.status_code, answer.json()["reason"]) == (429, "too_many_listeners")
            assert int(answer.headers["retry-after"]) > 0
        finally:
            for stream in streams:
                stream.close()

        # Who has left makes room.
        def is_let_in() -> bool:
            with client.stream("GET", f"{controller.url}/events") as stream:
                return stream.status_code == 200

        wait_until(is_let_in, limit_s=20, what="room for a follower")


def test_a_stream_ends_with_its_controller(controller):
    with another(controller.settings.etcd) as second, following(second.url) as events:
        events.next()
        second.controller.ask_stop()
        with pytest.raises(AssertionError, match="has ended"):
            events.changes_until(1 << 62)
