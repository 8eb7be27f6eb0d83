"""Who gets in: TLS, client certificates, the token, and the limits on what one client may ask."""

from __future__ import annotations

import re
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lochness import keys
from lochness.agent_access import AgentAccess
from lochness.agent_client import MistifyAgent
from lochness.context import Context
from lochness.errors import ConfigurationError, HTTPCodeError, UnavailableError
from lochness.identity import new_id
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.store.memory import MemoryStore
from lochness.store.protocol import Put
from lochness_lab.certificates import Certificate, CertificateAuthority
from lochness_lab.etcd import EtcdServer
from lochness_lab.waiting import wait_until
from lochness_node.agent.settings import AgentSettings
from tests.contract.agent.agent_process import AgentProcess

TOKEN = "a-token-that-nobody-guesses"
GUEST, HYPERVISOR = new_id(), new_id()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@contextmanager
def listening(directory: Path, etcd: EtcdServer, **settings: Any) -> Iterator[AgentProcess]:
    """An agent that listens; over TLS nobody has asked it anything yet."""
    agent = AgentProcess(directory, etcd.url, **settings)
    with closing(agent):
        agent.launch()
        agent.wait_until_listening()
        yield agent


def asked_by(access: AgentAccess, agent: AgentProcess) -> str:
    """The reason for which a client with this access is refused; "" when it is let in: the guest is not here."""
    with MemoryStore() as store:
        port = int(agent.url.rpartition(":")[2])
        records = {
            keys.guest(GUEST): GuestRecord(id=GUEST, hypervisor=HYPERVISOR),
            keys.hypervisor(HYPERVISOR): HypervisorRecord(id=HYPERVISOR, ip="127.0.0.1"),
        }
        store.commit((), tuple(Put(key, record.to_json()) for key, record in records.items()))
        with MistifyAgent(Context(store), port, timeout_s=10, access=access) as client:
            try:
                client.get_guest(GUEST)
            except HTTPCodeError as error:
                return "" if error.code == 404 else str(error.code)
            except UnavailableError as error:
                return error.message
    raise AssertionError("a guest that is not here was answered")


def test_with_client_certificates_only_those_with_one_get_in(
    tmp_path: Path, etcd_server: EtcdServer, authority: CertificateAuthority
) -> None:
    server, client = authority.issue("agent", "127.0.0.1"), authority.issue("controller")
    stranger = CertificateAuthority(tmp_path / "other").issue("controller")
    ca = str(authority.ca)
    with listening(
        tmp_path / "agent", etcd_server, listen="127.0.0.1:0", tls_cert=str(server.cert), tls_key=str(server.key),
        tls_client_ca=ca,
    ) as agent:  # fmt: skip
        assert agent.logged("agent.listening")[0]["is_tls"] is True
        shown = AgentAccess(ca=ca, cert=str(client.cert), key=str(client.key))
        assert asked_by(shown, agent) == ""
        assert asked_by(AgentAccess(ca=ca), agent) != ""
        assert asked_by(AgentAccess(ca=ca, cert=str(stranger.cert), key=str(stranger.key)), agent) != ""
        assert asked_by(AgentAccess(), agent) != ""  # clear text
        not_ours = AgentAccess(ca=str(tmp_path / "other/ca.crt"), cert=str(client.cert), key=str(client.key))
        assert "certificate" in asked_by(not_ours, agent).lower()
        assert asked_by(shown, agent) == ""


def test_with_a_token_only_those_with_the_token_get_in(
    tmp_path: Path, etcd_server: EtcdServer, authority: CertificateAuthority
) -> None:
    server = authority.issue("token-agent", "127.0.0.1")
    ca = str(authority.ca)
    with listening(
        tmp_path / "agent", etcd_server, tls_cert=str(server.cert), tls_key=str(server.key), token=TOKEN
    ) as agent:
        assert asked_by(AgentAccess(ca=ca, token=TOKEN), agent) == ""
        assert asked_by(AgentAccess(ca=ca, token=TOKEN + "x"), agent) == "401"
        assert asked_by(AgentAccess(ca=ca), agent) == "401"
        assert TOKEN not in agent.process.log.read_text()


def test_a_token_is_asked_for_on_loopback_too_and_only_healthz_is_open(tmp_path: Path, etcd_server: EtcdServer) -> None:
    with AgentProcess(tmp_path, etcd_server.url, token=TOKEN) as agent:
        assert agent.get("/healthz").status_code == 200
        for header in (None, "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN} {TOKEN}"):
            answer = agent.http.get(agent.url + "/guests", headers={"Authorization": header} if header else {})
            assert answer.status_code == 401, header
            assert answer.json()["reason"] == "unauthorized"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-ID"])
        twice = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")]
        assert agent.http.get(agent.url + "/guests", headers=twice).status_code == 401
        let_in = agent.http.get(agent.url + "/guests", headers={"Authorization": f"bearer {TOKEN}"})
        assert (let_in.status_code, let_in.json()) == (200, [])


def test_a_renewed_certificate_is_shown_without_a_restart(
    tmp_path: Path, etcd_server: EtcdServer, authority: CertificateAuthority
) -> None:
    first, second = authority.issue("first", "127.0.0.1"), authority.issue("second", "127.0.0.1")
    cert, key = tmp_path / "agent.crt", tmp_path / "agent.key"
    put(first, cert, key)
    with listening(tmp_path / "agent", etcd_server, tls_cert=str(cert), tls_key=str(key), token=TOKEN) as agent:
        assert shown_by(agent) == ssl.PEM_cert_to_DER_cert(pem_of(first))
        key.write_text("no key")
        agent.process.signal(signal.SIGHUP)
        wait_until(lambda: agent.logged("agent.certificate_unusable"), limit_s=40, what="complaint")
        assert shown_by(agent) == ssl.PEM_cert_to_DER_cert(pem_of(first))
        put(second, cert, key)
        agent.process.signal(signal.SIGHUP)
        wait_until(lambda: agent.logged("agent.certificate_renewed"), limit_s=40, what="renewal")
        assert shown_by(agent) == ssl.PEM_cert_to_DER_cert(pem_of(second))


def put(pair: Certificate, cert: Path, key: Path) -> None:
    for source, target in ((pair.cert, cert), (pair.key, key)):
        new = target.with_suffix(".new")
        new.write_bytes(source.read_bytes())
        new.replace(target)


def pem_of(pair: Certificate) -> str:
    text = pair.cert.read_text()
    return text[text.index("-----BEGIN") :]


def shown_by(agent: AgentProcess) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", int(agent.url.rpartition(":")[2]))
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tls_cert": "{cert}", "tls_key": "{key}"}, "not loopback"),
        ({"token": TOKEN}, "not loopback"),
        ({"tls_cert": "{cert}"}, "belong together"),
        ({"tls_client_ca": "{cert}"}, "needs tls_cert"),
        ({"token": "short"}, "16 to 512"),
        ({"tls_cert": "/nothing", "tls_key": "/nothing", "token": TOKEN}, "No such file"),
        ({"tls_cert": "{cert}", "tls_key": "{key}", "tls_client_ca": "{key}"}, "tls_client_ca"),
    ],
)
def test_half_a_protection_is_refused(authority: CertificateAuthority, settings: dict[str, str], words: str) -> None:
    pair = authority.issue("half", "127.0.0.1")
    given: dict[str, Any] = {name: text.format(cert=pair.cert, key=pair.key) for name, text in settings.items()}
    with pytest.raises(ConfigurationError, match=words):
        AgentSettings(listen="0.0.0.0:0", **given).check()


def test_protected_it_listens_on_all_addresses(
    tmp_path: Path, etcd_server: EtcdServer, authority: CertificateAuthority
) -> None:
    server = authority.issue("everywhere", "127.0.0.1")
    with listening(
        tmp_path / "agent", etcd_server, listen="0.0.0.0:0", tls_cert=str(server.cert), tls_key=str(server.key),
        token=TOKEN,
    ) as agent:  # fmt: skip
        assert agent.url.startswith("http://0.0.0.0:")
        assert asked_by(AgentAccess(ca=str(authority.ca), token=TOKEN), agent) == ""


def test_a_client_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path, etcd_server: EtcdServer) -> None:
    with AgentProcess(tmp_path, etcd_server.url, requests_per_s=0.01, requests_burst=30) as agent:
        answers = [agent.get("/jobs") for _ in range(31)]
        assert {answer.status_code for answer in answers[:-30]} <= {200}
        refused = answers[-1]
        assert (refused.status_code, refused.json()["reason"]) == (429, "too_many_requests")
        assert 0 < int(refused.headers["Retry-After"]) <= 100
        other = httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), trust_env=False)
        with other:
            assert other.get(agent.url + "/jobs").status_code == 200


def test_a_body_over_the_limit_is_refused(agent: AgentProcess) -> None:
    answer = agent.post("/guests", b" " * ((1 << 20) + 1))
    assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (AgentAccess(cert="c"), "belong together"),
        (AgentAccess(cert="c", key="k"), "needs agent_ca"),
        (AgentAccess(ca="/nothing"), "/nothing"),
        (AgentAccess(token="two words in here"), "16 to 512"),
    ],
)
def test_an_access_that_cannot_work_is_refused_at_once(access: AgentAccess, words: str) -> None:
    with MemoryStore() as store, pytest.raises(ConfigurationError, match=words):
        MistifyAgent(Context(store), access=access)


def test_a_token_does_not_travel_in_clear_text() -> None:
    access = AgentAccess(token=TOKEN)
    assert access.headers("http://127.0.0.1:8080")
    assert access.headers("http://[::1]:8080")
    assert access.headers("https://10.0.0.1:8080")
    for url in ("http://10.0.0.1:8080", "http://localhost.example.org", "http://127.0.0.1.example.org"):
        with pytest.raises(ConfigurationError, match="clear text"):
            access.headers(url)
