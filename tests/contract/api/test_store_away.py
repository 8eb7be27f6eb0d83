"""What does the API say while etcd is away, frozen, or comes back?"""

from __future__ import annotations

import pytest

from lochness_lab.waiting import wait_until
from tests.contract.api.running import Api, RunningController


@pytest.fixture
def away(own_etcd):
    """A controller with short limits on an etcd to be broken."""
    running = RunningController(own_etcd.url, etcd_timeout_s=1.0)
    try:
        yield own_etcd, running
    finally:
        running.stop()


def test_everything_is_503_with_a_reason_until_etcd_is_back(away):
    etcd, running = away
    with Api(running.url) as api:
        made = api.made("/networks", {})
        etcd.kill()
        for answer in (api.get("/readyz"), api.get("/networks"), api.post("/networks", json={})):
            assert answer.status_code == 503, answer.text
            assert answer.json()["reason"] == "unavailable"
            assert answer.json()["message"]
        assert api.get("/healthz").status_code == 200
        etcd.start()
        wait_until(lambda: api.get("/readyz").status_code == 200, limit_s=15, what="readiness")
        assert api.get(f"/networks/{made['id']}").json() == made


def test_a_write_whose_outcome_is_not_known_says_so(away):
    etcd, running = away
    with Api(running.url) as api:
        api.made("/networks", {})
        etcd.freeze()
        answer = api.post("/networks", json={})
        etcd.thaw()
        assert answer.status_code == 504
        assert answer.json()["reason"] == "ambiguous_write"
        wait_until(lambda: api.get("/readyz").status_code == 200, limit_s=15, what="readiness")


def test_a_stop_does_not_wait_for_a_store_that_is_away(away, own_etcd):
    _, running = away
    own_etcd.freeze()
    try:
        running.controller.ask_stop()
        running._thread.join(1.5)
        assert not running._thread.is_alive()
    finally:
        own_etcd.thaw()
