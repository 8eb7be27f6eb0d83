"""Tokens, roles, TLS: who may do what, and what is written down of it."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lochness import keys
from lochness.errors import ConfigurationError
from lochness.store.protocol import Prefix
from lochness_controller.settings import ControllerSettings
from lochness_lab.certificates import CertificateAuthority
from lochness_lab.waiting import wait_until
from tests.contract.api.running import RunningController

UNKNOWN = "lochness_" + "0" * 32 + "_" + "x" * 43


def command(etcd_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the controllers in this one write their log to the same standard output."""
    argv = [sys.executable, "-m", "lochness_controller", "--etcd", etcd_url, "token", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


class GuardedController(RunningController):
    """One that lets nobody in without a token, by TLS; `ca` is whose certificate it shows."""

    ca = ""


@pytest.fixture(scope="module")
def guarded(controller, tmp_path_factory) -> Iterator[GuardedController]:
    """On the etcd of the other one."""
    authority = CertificateAuthority(tmp_path_factory.mktemp("door"))
    issued = authority.issue("controller", "127.0.0.1")
    running = GuardedController(
        controller.settings.etcd, require_tokens=True, tls_cert=str(issued.cert), tls_key=str(issued.key)
    )
    running.url = running.url.replace("http:", "https:")
    running.ca = str(authority.ca)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def first_token(controller) -> str:
    done = command(controller.settings.etcd, "create", "the first", "--role", "operate")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def client(guarded: GuardedController, token: str = "") -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    tls = ssl.create_default_context(cafile=guarded.ca)
    return httpx.Client(base_url=guarded.url, headers=headers, verify=tls, trust_env=False, timeout=30)


def test_nobody_is_let_in_without_a_token_that_is_known(guarded):
    for token in ("", "nonsense", UNKNOWN):
        with client(guarded, token) as api:
            for answer in (
                api.get("/guests"),
                api.post("/networks", json={}),
                api.get("/metrics"),
                api.get(f"{guarded.url}//guests"),
            ):
                assert answer.status_code == 401, answer.text
                assert answer.json()["reason"] == "unauthorized"
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.headers["x-request-id"]
            assert api.get("/healthz").status_code == 200
            assert api.get("/readyz").status_code == 200


def test_two_authorizations_are_none(guarded, first_token):
    with client(guarded) as api:
        twice = [("Authorization", f"Bearer {first_token}"), ("Authorization", f"Bearer {first_token}")]
        assert api.get("/guests", headers=twice).status_code == 401


def test_a_reader_reads_and_an_operator_operates(guarded, first_token):
    with client(guarded, first_token) as operator:
        made = operator.post("/tokens", json={"name": "monitoring", "role": "read"})
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        assert list(made.json()) == ["id", "name", "role", "created_at", "expires_at", "created_by", "token"]
        assert made.json()["created_by"] == "the first"
        with client(guarded, made.json()["token"]) as reader:
            assert reader.get("/guests").status_code == 200
            before = reader.get("/networks").json()
            for answer in (
                reader.post("/networks", json={}),
                reader.patch("/config", json={"a": "b"}),
                reader.get("/tokens"),
                reader.get(f"{guarded.url}//tokens"),
                reader.post("/tokens", json={"name": "more", "role": "operate"}),
            ):
                assert (answer.status_code, answer.json()["reason"]) == (403, "forbidden")
            assert reader.get("/networks").json() == before
            assert operator.delete(f"/tokens/{made.json()['id']}").status_code == 200
            wait_until(lambda: reader.get("/guests").status_code == 401, limit_s=20, what="refusal of a removed token")
        assert operator.delete(f"/tokens/{made.json()['id']}").status_code == 404


def test_secrets_are_told_once_and_kept_nowhere(guarded, controller, first_token):
    with client(guarded, first_token) as operator:
        token = operator.post("/tokens", json={"name": "x", "role": "read"}).json()["token"]
        listed = operator.get("/tokens").text
    stored = b"".join(item.value for item in controller.store.read(Prefix(keys.ROOT)).ranges[0])
    for text in (token, first_token):
        secret = text.rpartition("_")[2]
        assert secret not in listed
        assert secret.encode() not in stored
    assert "sha256" not in listed


@pytest.mark.parametrize("end", [{"expires_at": "2001-01-01T00:00:00Z"}, {"ttl_s": 1}], ids=["past", "soon"])
def test_a_token_ends_with_its_time(guarded, first_token, end):
    with client(guarded, first_token) as operator:
        token = operator.post("/tokens", json={"name": "short", **end}).json()["token"]
    with client(guarded, token) as api:
        wait_until(lambda: api.get("/guests").status_code == 401, limit_s=20, what="the token's end")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "x\ny"}, "name"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "ttl_s": -1}, "ttl_s"),
        ({"name": "x", "ttl_s": 1, "expires_at": "2999-01-01T00:00:00Z"}, "ttl_s"),
    ],
)
def test_a_token_that_makes_no_sense_is_400(api, body, field):
    answer = api.post("/tokens", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert api.post("/tokens", json={"name": "x", "role": "admin"}).status_code == 400


def test_an_idempotency_key_is_its_clients_own(guarded, first_token):
    with client(guarded, first_token) as one:
        other_token = one.post("/tokens", json={"name": "other", "role": "operate"}).json()["token"]
        with client(guarded, other_token) as other:
            made = [api.post("/networks", json={}, headers={"Idempotency-Key": "mine"}) for api in (one, other, one)]
    assert made[0].json() == made[2].json() != made[1].json()


def test_every_mutation_is_in_the_journal_with_who_and_from_where(guarded, first_token, capfd):
    with client(guarded, first_token) as api:
        api.post("/networks", json={}, headers={"X-Request-ID": "trace-me-1"})
        api.get("/networks", headers={"X-Request-ID": "trace-me-2"})
    with client(guarded) as stranger:
        stranger.delete("/networks/x", headers={"X-Request-ID": "trace-me-3"})
    told: list[str] = []

    def both_are_told() -> bool:
        """The line is written after the answer has left, so the client can be here before it."""
        told.extend(line for line in capfd.readouterr().out.splitlines() if "api.mutation_answered" in line)
        return all(any(name in line for line in told) for name in ("trace-me-1", "trace-me-3"))

    wait_until(both_are_told, limit_s=20, what="the journal's lines of two mutations")
    (made,) = [line for line in told if "trace-me-1" in line]
    for part in ("the first", "127.0.0.1", "POST", "/networks", "201", "created", "Network"):
        assert part in made, made
    assert not any("trace-me-2" in line for line in told)
    (refused,) = [line for line in told if "trace-me-3" in line]
    assert "anonymous" in refused
    assert "401" in refused


def test_the_first_token_comes_from_the_command_and_goes_by_it(controller):
    etcd = controller.settings.etcd
    made = command(etcd, "create", "somebody", "--role", "read", "--days", "1")
    assert made.returncode == 0
    listed = command(etcd, "list").stdout
    (line,) = [line for line in listed.splitlines() if line.endswith("somebody")]
    assert made.stdout.strip().rpartition("_")[2] not in listed
    removed = command(etcd, "delete", line.split()[0])
    assert (removed.returncode, "somebody" in removed.stdout) == (0, True)
    again = command(etcd, "delete", line.split()[0])
    assert again.returncode == 1
    assert again.stderr.startswith("lochness-controller: token")
    wrong = command(etcd, "create", "x", "--role", "admin")
    assert (wrong.returncode, wrong.stderr) == (1, "lochness-controller: role must be read or operate, got 'admin'\n")


@pytest.mark.parametrize(
    "settings",
    [{}, {"require_tokens": True}, {"tls": True}],
    ids=["nothing", "tokens in clear text", "TLS for anybody"],
)
def test_beyond_loopback_nobody_listens_unprotected(tmp_path: Path, settings):
    given = dict(settings)
    if given.pop("tls", False):
        issued = CertificateAuthority(tmp_path).issue("c", "192.0.2.1")
        given |= {"tls_cert": str(issued.cert), "tls_key": str(issued.key)}
    with pytest.raises(ConfigurationError, match="is refused: it is not loopback"):
        ControllerSettings(listen=["192.0.2.1:17000"], **given).check()
    ControllerSettings(listen=["192.0.2.1:17000"], insecure=True, **given).check()


def test_beyond_loopback_with_tls_and_tokens(tmp_path: Path):
    issued = CertificateAuthority(tmp_path).issue("c", "192.0.2.1")
    cert, key = str(issued.cert), str(issued.key)
    ControllerSettings(listen=["192.0.2.1:17000"], require_tokens=True, tls_cert=cert, tls_key=key).check()
    with pytest.raises(ConfigurationError, match="belong together"):
        ControllerSettings(tls_cert=cert).check()
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ControllerSettings(tls_cert=cert, tls_key=str(tmp_path / "none")).check()
