"""WIRE.md section 1: what holds for every path."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

UNKNOWN = "00000000-0000-4000-8000-000000000000"

OBJECTS = ("hypervisors", "guests", "jobs", "networks", "subnets", "flavors", "images", "fwgroups", "vlans/groups")


@pytest.mark.parametrize("name", OBJECTS)
def test_a_list_is_an_array_and_every_body_ends_with_a_newline(api, name):
    answer = api.get(f"/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json(), list)
    assert answer.content.endswith(b"\n")


@pytest.mark.parametrize("name", OBJECTS)
def test_an_unknown_object_is_404(api, name):
    answer = api.get(f"/{name}/{UNKNOWN}")
    assert answer.status_code == 404
    body = answer.json()
    assert body["code"] == 404
    assert body["reason"] == "not_found"
    assert UNKNOWN in body["message"]
    assert answer.content.endswith(b"\n")


@pytest.mark.parametrize("name", OBJECTS)
def test_an_id_that_is_no_uuid_is_400(api, name):
    answer = api.get(f"/{name}/not-a-uuid")
    assert answer.status_code == 400
    assert answer.json()["reason"] == "invalid"
    assert answer.json()["field"] == "id"


def test_an_id_is_read_in_any_usual_form(api):
    made = api.made("/hypervisors", {})
    plain = made["id"]
    for spelling in (plain.upper(), f"urn:uuid:{plain}", plain.replace("-", "")):
        assert api.get(f"/hypervisors/{spelling}").json() == made


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/hypervisors/", "/hypervisors"),
        ("/guests/?a=1", "/guests?a=1"),
        ("/nothing//", "/nothing"),
        ("//elsewhere.example/", "/elsewhere.example"),
    ],
)
def test_a_trailing_slash_redirects(controller, path, location):
    with httpx.Client(trust_env=False) as plain:
        answer = plain.get(controller.url + path)
    assert answer.status_code == 301
    assert answer.headers["location"] == location


def test_gzip_when_asked_for(controller):
    with httpx.Client(trust_env=False) as plain:
        for path in ("/hypervisors", "/nothing"):
            with plain.stream("GET", controller.url + path, headers={"Accept-Encoding": "gzip"}) as answer:
                assert answer.headers["content-encoding"] == "gzip"
                raw = b"".join(answer.iter_raw())
            json.loads(gzip.decompress(raw))
        for refused in ("identity", "gzip;q=0", ""):
            answer = plain.get(f"{controller.url}/hypervisors", headers={"Accept-Encoding": refused})
            assert "content-encoding" not in answer.headers


def test_an_unrouted_path_is_404_and_a_method_that_is_not_there_405(api):
    answer = api.get("/nothing")
    assert answer.status_code == 404
    assert answer.json() == {"message": "there is nothing at /nothing", "code": 404, "reason": "not_found"}
    answer = api.put("/guests")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].replace(" ", "").split(",")) >= {"GET", "POST"}
    assert answer.json()["reason"] == "method_not_allowed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"ip":"10.0.0.1",}',
        b'{"ip":"10.0.0.1"} more',
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"ip":17}',
        b'{"metadata":[]}',
        b'{"metadata":{"a":1}}',
        b'{"total_resources":{"memory":-1}}',
        b'{"total_resources":{"memory":"much"}}',
        b'{"id":"not-a-uuid"}',
        b'{"id":17}',
        b'{"ip":"10.0.0.256"}',
        b'{"mac":"01:23:45"}',
    ],
)
def test_malformed_input_is_400_and_changes_nothing(api, body):
    before = api.get("/hypervisors").json()
    answer = api.post("/hypervisors", content=body)
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["code"] == 400
    assert problem["reason"] == "invalid"
    assert problem["message"]
    assert "Traceback" not in answer.text
    assert api.get("/hypervisors").json() == before


def test_a_wrong_field_is_named(api):
    assert api.post("/hypervisors", json={"mac": "zz"}).json()["field"] == "mac"
    assert api.post("/hypervisors", json={"total_resources": {"cpu": "x"}}).json()["field"] == "total_resources.cpu"


def test_unknown_fields_are_ignored(api):
    made = api.made("/networks", {"colour": "blue"})
    assert "colour" not in made
    assert "colour" not in api.get(f"/networks/{made['id']}").json()


def test_a_body_beyond_1_mib_is_413(api):
    answer = api.post("/hypervisors", content=b'{"metadata":{"a":"' + b"x" * (1 << 20) + b'"}}')
    assert answer.status_code == 413
    assert answer.json()["reason"] == "body_too_large"


def test_every_answer_carries_a_request_id_the_clients_where_it_gave_one(api):
    assert api.get("/healthz", headers={"X-Request-ID": "my-trace.17"}).headers["x-request-id"] == "my-trace.17"
    for unfit in ("has blank", "x" * 200, ""):
        answer = api.get("/nothing", headers={"X-Request-ID": unfit})
        assert len(answer.headers["x-request-id"]) == 36


@pytest.mark.parametrize(
    "given", ["01:23:45:67:89:AC", "01-23-45-67-89-ac", "0123.4567.89ac"], ids=["colons", "dashes", "dots"]
)
def test_a_mac_is_printed_in_lower_case_with_colons(api, given):
    assert api.made("/hypervisors", {"mac": given})["mac"] == "01:23:45:67:89:ac"


def test_a_mac_of_eight_bytes(api):
    assert api.made("/hypervisors", {"mac": "0123.4567.89ac.cdef"})["mac"] == "01:23:45:67:89:ac:cd:ef"


def test_the_openapi_document_names_every_path(api):
    document = api.get("/schema/openapi.json").json()
    for path in ("/hypervisors", "/guests", "/guests/{id}/{action}", "/jobs/{id}", "/networks/{id}/subnets/{subnet}"):
        assert path in document["paths"], path
    body = document["paths"]["/guests"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["flavor"]["type"] == "string"


def test_health(api):
    assert api.get("/healthz").json() == {"status": "ok"}
    ready = api.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"


def test_metrics_are_there_for_prometheus(api):
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "lochness_build_info" in answer.text
