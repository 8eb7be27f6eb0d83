"""`Idempotency-Key`: a request that comes twice is carried out once."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import httpx
import msgspec
import pytest

from lochness import keys
from lochness.ids import new_id
from lochness.store.protocol import Prefix, Put
from lochness_controller.api.repeats import KeptRequest
from tests.contract.api.running import JOB_HEADER

HEADER = "Idempotency-Key"


@pytest.fixture
def key() -> dict[str, str]:
    return {HEADER: f"key-{uuid.uuid4()}"}


def kept(controller) -> list[Any]:
    return list(controller.store.read(Prefix(keys.REQUEST_PATH)).ranges[0])


def same(first: httpx.Response, second: httpx.Response) -> bool:
    names = ("content-type", "etag", JOB_HEADER.lower())
    return (first.status_code, first.content, [first.headers.get(name) for name in names]) == (
        second.status_code,
        second.content,
        [second.headers.get(name) for name in names],
    )


def test_a_create_that_comes_twice_is_one_guest_with_one_answer(cluster, key):
    body = {"flavor": cluster.flavor, "network": cluster.network}
    first = cluster.api.post("/guests", json=body, headers=key)
    assert cluster.api.finished(first)["status"] == "done"
    second = cluster.api.post("/guests", json=body, headers=key)
    assert same(first, second)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert cluster.api.get(f"/hypervisors/{cluster.hypervisor}/guests").json() == [first.json()["id"]]
    other = cluster.api.post("/guests", json=body, headers={HEADER: "another"})
    assert other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_every_mutation_takes_a_key(api, key, method):
    made = api.made("/networks", {})
    body = {"json": {"metadata": {"a": "1"}}} if method == "PATCH" else {}
    first = api.request(method, f"/networks/{made['id']}", headers=key, **body)
    assert first.status_code == 200
    assert same(first, api.request(method, f"/networks/{made['id']}", headers=key, **body))


def test_a_refusal_is_the_same_answer_too(api, key):
    first = api.post("/networks", json={"id": 7}, headers=key)
    assert first.status_code == 400
    assert same(first, api.post("/networks", json={"id": 7}, headers=key))


def test_the_same_key_with_another_request_is_422(api, key):
    made = api.post("/networks", json={"metadata": {"a": "1"}}, headers=key).json()
    before = api.get("/networks").json()
    for path, body in (("/networks", {"metadata": {"a": "2"}}), ("/flavors", {"metadata": {"a": "1"}})):
        answer = api.post(path, json=body, headers=key)
        assert (answer.status_code, answer.json()["reason"]) == (422, "idempotency_key_reused")
    assert api.get("/networks").json() == before
    assert made in before


def test_two_at_once_are_one_effect(controller, key):
    name = {"metadata": {"name": str(uuid.uuid4())}}
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            answers.append(client.post(f"{controller.url}/networks", json=name, headers=key))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.json()["id"] for answer in answers}) == 1
    listed = httpx.get(f"{controller.url}/networks", trust_env=False).json()
    assert sum(network["metadata"] == name["metadata"] for network in listed) == 1


@pytest.mark.parametrize("key", ["", "has blank", "x" * 256, "ümlaut"])
def test_a_key_that_is_none_is_400(api, key):
    assert api.post("/networks", json={}, headers={HEADER: key.encode()}).status_code == 400


def test_a_read_does_not_look_at_the_key(api, controller):
    before = len(kept(controller))
    assert api.get("/networks", headers={HEADER: "x"}).status_code == 200
    assert len(kept(controller)) == before


def test_answers_are_kept_under_a_lease_for_a_day(api, controller, key):
    before = {item.key for item in kept(controller)}
    api.post("/networks", json={}, headers=key)
    (item,) = [item for item in kept(controller) if item.key not in before]
    assert controller.store.keep_alive(item.lease_id) >= 24 * 3600


@pytest.mark.parametrize("controller_of_claim", [new_id(), ""], ids=["dead", "gave-up"])
def test_a_request_that_a_controller_did_not_end_is_carried_out_under_the_same_ids(
    cluster, controller, key, controller_of_claim
):
    """Its first attempt may have made everything already, or nothing: both end in one guest."""
    body = {"flavor": cluster.flavor, "network": cluster.network}
    before = {item.key for item in kept(controller)}
    first = cluster.api.post("/guests", json=body, headers=key)
    assert cluster.api.finished(first)["status"] == "done"
    (item,) = [item for item in kept(controller) if item.key not in before]
    claim = msgspec.json.decode(item.value, type=KeptRequest)

    def forget() -> None:
        begun = KeptRequest(request=claim.request, seed=claim.seed, controller=controller_of_claim)
        controller.store.commit((), (Put(item.key, msgspec.json.encode(begun), item.lease_id),))

    forget()
    second = cluster.api.post("/guests", json=body, headers=key)
    assert second.status_code == 202
    assert "idempotency-replayed" not in second.headers
    assert second.headers[JOB_HEADER] == first.headers[JOB_HEADER]
    assert second.json()["id"] == first.json()["id"]
    assert len(cluster.api.get("/jobs", params={"guest": first.json()["id"]}).json()) == 1


def test_a_record_that_the_first_attempt_has_made_is_answered_as_made(api, controller, key):
    before = {item.key for item in kept(controller)}
    first = api.post("/networks", json={"metadata": {"a": "1"}}, headers=key)
    (item,) = [item for item in kept(controller) if item.key not in before]
    claim = msgspec.json.decode(item.value, type=KeptRequest)
    begun = KeptRequest(request=claim.request, seed=claim.seed, controller=new_id())
    controller.store.commit((), (Put(item.key, msgspec.json.encode(begun)),))
    assert same(first, api.post("/networks", json={"metadata": {"a": "1"}}, headers=key))


def test_a_body_beyond_the_limit_is_413_with_a_key_too(api, key):
    answer = api.post("/networks", content=b'{"metadata":{"a":"' + b"x" * (1 << 20) + b'"}}', headers=key)
    assert answer.status_code == 413
