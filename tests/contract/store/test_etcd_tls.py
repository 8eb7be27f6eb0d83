"""A real etcd over TLS that demands client certificates: who is let in, and what everybody else is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness.errors import ConfigurationError, LochnessError, UnavailableError
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Key, Put
from lochness_lab.certificates import Certificate, CertificateAuthority
from lochness_lab.etcd import EtcdCluster, EtcdServer, free_ports
from lochness_lab.waiting import wait_until

TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """A CA that etcd knows nothing of."""
    return CertificateAuthority(tmp_path_factory.mktemp("stranger"), name="stranger")


@pytest.fixture(scope="module")
def client(authority: CertificateAuthority) -> Certificate:
    return authority.issue("client")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory, authority: CertificateAuthority) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd"), authority=authority) as etcd:
        yield etcd


def check_refusal(url: str, ca: Path | None, client: Certificate | None, *words: str) -> None:
    """A write (which is certain not to have happened) and a watch are told `words` and the URL."""
    cert, key = (client.cert, client.key) if client else (None, None)
    with EtcdStore([url], ca_file=ca, cert_file=cert, key_file=key, timeout_s=TIMEOUT_S) as store:
        with pytest.raises(UnavailableError) as of_write:
            store.commit([], [Put("a", b"")])
        with pytest.raises(UnavailableError) as of_watch:
            store.watch("a", start_revision=1).next(10)
    for caught in (of_write, of_watch):
        for each in (url, *words):
            assert each in caught.value.message


class TestCluster:
    def test_each_member_is_checked_against_its_own_name(
        self, tmp_path: Path, authority: CertificateAuthority, client: Certificate
    ) -> None:
        with (
            EtcdCluster(tmp_path, authority=authority) as cluster,
            EtcdStore(cluster.urls, ca_file=authority.ca, cert_file=client.cert, key_file=client.key) as store,
        ):
            assert len({url.split(":")[1] for url in cluster.urls}) == 3
            revision = store.commit([], [Put("a", b"1")])
            watch = store.watch("a", start_revision=revision)
            batch = watch.next(5)
            assert batch is not None
            for url in cluster.urls:
                with EtcdStore([url], ca_file=authority.ca, cert_file=client.cert, key_file=client.key) as one:
                    assert one.read(Key("a")).one() == store.read(Key("a")).one()
            for member in cluster.members:
                cluster.kill(member)
                wait_until(lambda: revision_of(store) >= revision, limit_s=15, what="answer without that member")
                member.start()


class TestServersCertificate:
    def test_of_another_ca_is_told_with_our_ca_file(
        self, etcd: EtcdServer, stranger: CertificateAuthority, client: Certificate
    ) -> None:
        words = f"its certificate does not verify against the CA file {stranger.ca}: unable to get local"
        check_refusal(etcd.url, stranger.ca, client, words)

    def test_for_another_name_is_told_with_that_name(
        self, etcd: EtcdServer, authority: CertificateAuthority, client: Certificate
    ) -> None:
        url = etcd.url.replace("127.0.0.1", "localhost")
        check_refusal(url, authority.ca, client, "its certificate is not for the name localhost")

    def test_that_has_expired_is_told_as_that(
        self, tmp_path: Path, authority: CertificateAuthority, client: Certificate
    ) -> None:
        expired = authority.issue("old-server", "127.0.0.1", days=-1)
        flags = {"cert-file": str(expired.cert), "key-file": str(expired.key)}
        client_port, peer_port = free_ports(2)
        server = EtcdServer(tmp_path, ports=(client_port, peer_port), authority=authority, flags=flags)
        server.launch()  # never healthy to who checks its certificate
        try:
            wait_until(lambda: "serving client" in server.log_tail(), limit_s=15, what="etcd that listens")
            check_refusal(server.url, authority.ca, client, f"CA file {authority.ca}: certificate has expired")
        finally:
            server.kill()

    def test_none_at_all_is_told(self, tmp_path: Path, authority: CertificateAuthority, client: Certificate) -> None:
        with EtcdServer(tmp_path) as plain:
            url = plain.url.replace("http:", "https:")
            check_refusal(url, authority.ca, client, "speak TLS")

    def test_that_was_not_expected_is_told(self, etcd: EtcdServer) -> None:
        check_refusal(etcd.url.replace("https:", "http:"), None, None, "does it want https?")


class TestOurCertificate:
    def test_missing(self, etcd: EtcdServer, authority: CertificateAuthority) -> None:
        check_refusal(etcd.url, authority.ca, None, "accept clients without a certificate")

    def test_expired(self, etcd: EtcdServer, authority: CertificateAuthority) -> None:
        expired = authority.issue("expired", days=-1)
        check_refusal(etcd.url, authority.ca, expired, f"accept the client certificate {expired.cert}")

    def test_of_another_ca(
        self, etcd: EtcdServer, authority: CertificateAuthority, stranger: CertificateAuthority
    ) -> None:
        foreign = stranger.issue("foreign")
        check_refusal(etcd.url, authority.ca, foreign, f"accept the client certificate {foreign.cert}")

    def test_without_its_key(self, authority: CertificateAuthority, client: Certificate) -> None:
        other = authority.issue("other")
        for cert, key, named in (
            (client.cert, None, "belong together"),
            (client.cert, other.key, f"the key {other.key} is not the key of the certificate {client.cert}"),
            (client.key, client.cert, f"the key {client.cert} is not usable"),
            (client.cert, client.key.with_name("nowhere.key"), "nowhere.key can not be read: No such file"),
        ):
            with pytest.raises(ConfigurationError, match=re.escape(named)):
                EtcdStore(["https://127.0.0.1:1"], ca_file=authority.ca, cert_file=cert, key_file=key)


class TestFiles:
    def test_a_ca_file_that_is_none(self, tmp_path: Path, client: Certificate) -> None:
        damaged = tmp_path / "damaged.crt"
        damaged.write_text("-----BEGIN CERTIFICATE-----\nnot base64 at all\n-----END CERTIFICATE-----\n")
        empty = tmp_path / "empty.crt"
        empty.write_text("")
        for ca, named in (
            (damaged, f"{damaged} holds no usable certificate"),
            (empty, f"{empty} is not a PEM file"),
            (client.key, f"{client.key} holds no usable certificate"),
            (tmp_path, f"{tmp_path} can not be read"),
            (None, "https://127.0.0.1:1 needs the CA file"),
        ):
            with pytest.raises(ConfigurationError, match=re.escape(named)):
                EtcdStore(["https://127.0.0.1:1"], ca_file=ca)

    def test_certificates_for_http(self, authority: CertificateAuthority) -> None:
        with pytest.raises(ConfigurationError, match=r"http://127\.0\.0\.1:1 is not https"):
            EtcdStore(["http://127.0.0.1:1"], ca_file=authority.ca)

    def test_http_and_https_together(self, authority: CertificateAuthority) -> None:
        with pytest.raises(ConfigurationError, match="all be http or all be https"):
            EtcdStore(["https://127.0.0.1:1", "http://127.0.0.1:2"], ca_file=authority.ca)


class TestAuthentication:
    """etcd's own users: the client certificate's common name is the user."""

    def enable(self, server: EtcdServer, *users: str) -> None:
        server_calls = [
            ("user/add", {"name": "root", "password": "secret"}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            *(("user/add", {"name": user, "password": "secret"}) for user in users),
            ("enable", {}),
        ]
        for path, json in server_calls:
            server.request(f"/v3/auth/{path}", json).raise_for_status()

    def test_a_user_may_do_what_its_roles_allow(self, tmp_path: Path, authority: CertificateAuthority) -> None:
        root, guest = authority.issue("root"), authority.issue("guest")
        with EtcdServer(tmp_path, authority=authority) as server:
            self.enable(server, "guest")
            with EtcdStore([server.url], ca_file=authority.ca, cert_file=root.cert, key_file=root.key) as store:
                store.commit([], [Put("a", b"")])
                assert store.read(Key("a")).one() is not None
            check_refusal(server.url, authority.ca, guest, "permission denied")

    def test_who_is_nobody_is_refused(self, tmp_path: Path) -> None:
        with EtcdServer(tmp_path) as server:
            self.enable(server)
            check_refusal(server.url, None, None, "user name is empty")


def revision_of(store: EtcdStore) -> int:
    try:
        return store.read(Key("a")).revision
    except LochnessError:
        return 0
