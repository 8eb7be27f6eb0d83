"""What is answered beside the framework is answered as the framework does: two slashes in front lead to that one."""

from __future__ import annotations

import httpx
import pytest

from lochness_lab.waiting import wait_until
from tests.contract.api.running import JOB_HEADER

UNKNOWN = "00000000-0000-4000-8000-000000000000"
#: What differs from one answer to the next.
PASSING = ("date", "x-request-id", JOB_HEADER.lower())


def both(api, method: str, path: str, **request) -> tuple[httpx.Response, httpx.Response]:
    """The answer, and the framework's. Compressed, texts of one length differ in theirs."""
    request["headers"] = {"Accept-Encoding": "identity"} | request.get("headers", {})
    return tuple(
        api.send(api.build_request(method, str(api.base_url) + slash + path, **request)) for slash in ("", "/")
    )


def seen(answer: httpx.Response) -> tuple[int, dict[str, str]]:
    """An answer's status and the headers by which it could differ."""
    return answer.status_code, {name: text for name, text in answer.headers.items() if name not in PASSING}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_records_and_lists_read_the_same(cluster, encoding):
    guest = cluster.running_guest()
    for path in ("/guests", "/hypervisors", f"/guests/{guest['id']}", f"/hypervisors/{cluster.hypervisor}"):

        def same(path: str = path) -> httpx.Response | None:
            ours, theirs = both(cluster.api, "GET", path, headers={"Accept-Encoding": encoding})
            return ours if seen(ours) == seen(theirs) and ours.content == theirs.content else None

        # Not at once: other tests' guests may change in between.
        answer = wait_until(same, limit_s=20, what=f"two equal answers to {path}")
        assert answer is not None
        assert answer.status_code == 200
        assert ("etag" in answer.headers) == (path.count("/") == 2)


@pytest.mark.parametrize("id", [UNKNOWN, "no-id", UNKNOWN.upper()])
@pytest.mark.parametrize("kind", ["guests", "hypervisors", "networks"])
def test_what_is_not_there_is_refused_the_same(api, kind, id):
    ours, theirs = both(api, "GET", f"/{kind}/{id}")
    assert seen(ours) == seen(theirs)
    assert ours.json()["reason"] == theirs.json()["reason"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"id": 1}',
        b'{"id": "x"}',
        b'{"flavor": "x"}',
        b'{"mac": "x"}',
        b'{"metadata": {"a": 1}}',
        b'{"type": "xen"}',
        b'{"flavor": "%(unknown)s", "network": "%(unknown)s"}',
        b'{"metadata": {"a": "' + b"x" * (1 << 20) + b'"}}',
    ],
)
def test_a_create_is_refused_the_same(api, body):
    ours, theirs = both(api, "POST", "/guests", content=body.replace(b"%(unknown)s", UNKNOWN.encode()))
    assert ours.status_code in (400, 404, 413)
    assert seen(ours) == seen(theirs)
    assert ours.json() == theirs.json() | {"message": ours.json()["message"]}
    assert ours.json()["message"].replace("/guests", "") == theirs.json()["message"].replace("//guests", "")


def test_a_create_is_accepted_the_same_and_only_once(cluster):
    given = {"flavor": cluster.flavor, "network": cluster.network, "metadata": {"name": "a"}, "colour": "blue"}
    ours, theirs = both(cluster.api, "POST", "/guests", json=given)
    assert ours.status_code == 202
    assert seen(ours) == seen(theirs)
    assert ours.headers[JOB_HEADER] != theirs.headers[JOB_HEADER]
    own = {"id": "", "mac": ""}
    assert list(ours.json()) == list(theirs.json())
    assert ours.json() | own == theirs.json() | own
    again = {**given, "id": ours.json()["id"]}
    for answer in both(cluster.api, "POST", "/guests", json=again):
        assert (answer.status_code, answer.json()["reason"]) == (409, "already_exists")
    for answer in (ours, theirs):
        cluster.api.finished(answer)


def test_if_match_on_a_create_is_refused(cluster):
    answer = cluster.api.post("/guests", json={}, headers={"If-Match": '"1"'})
    assert answer.status_code == 412
