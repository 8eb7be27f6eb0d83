"""open_store refuses what could never work, naming the bad part, and never connects."""

from __future__ import annotations

from pathlib import Path

import pytest

from lochness.errors import ConfigurationError
from lochness.store.connect import open_store
from lochness.store.endpoints import Endpoint, parse_endpoints

GOOD = {
    "http://127.0.0.1:2379": Endpoint("127.0.0.1", 2379, False),
    "http://etcd": Endpoint("etcd", 2379, False),
    "https://etcd-1.example.org:443/": Endpoint("etcd-1.example.org", 443, True),
    "HTTP://[::1]:1": Endpoint("::1", 1, False),
    "http://node_1:65535": Endpoint("node_1", 65535, False),
}

BAD = {
    "": "empty",
    "127.0.0.1:2379": "scheme is missing",
    "localhost": "scheme is missing",
    "etcd://127.0.0.1:2379": "scheme is 'etcd'",
    "http://": "host is missing",
    "http://:2379": "host is missing",
    "http://a:b": "port 'b'",
    "http://a:0": "port '0'",
    "http://a:65536": "port '65536'",
    "http://a:2379/v3": "'/v3' does not belong",
    "http://a:2379?x=1": r"'\?x=1' does not belong",
    "http://user:word@a:2379": "user name",
    "http://a b:2379": "host 'a b'",
    "http://-a:2379": "host '-a'",
    "http://[::1:2379": "not a URL",
    "http://a:2379,": "empty",
    "http://a:1,,http://b:1": "empty",
    "http://a:1,https://b:1": "all be http or all be https",
    "http://a:1,b:1": "'b:1': the scheme is missing",
    "memory:": "inside one process",
}


@pytest.mark.parametrize("url", GOOD)
def test_an_endpoint_is_read_from_its_url(url: str) -> None:
    assert parse_endpoints([url]) == (GOOD[url],)
    assert parse_endpoints([str(GOOD[url])]) == (GOOD[url],)


@pytest.mark.parametrize("urls", BAD)
def test_a_bad_url_is_refused_with_what_is_wrong(urls: str) -> None:
    with pytest.raises(ConfigurationError, match=BAD[urls]):
        open_store(urls)


def test_no_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no etcd URL"):
        parse_endpoints([])


def test_opening_does_not_need_an_etcd() -> None:
    with open_store(" http://127.0.0.1:1 , http://etcd.invalid:1", ca="", cert=None):
        pass


@pytest.mark.parametrize("timeout_s", [0, -1])
def test_a_timeout_is_above_zero(timeout_s: float) -> None:
    with pytest.raises(ConfigurationError, match="above 0"):
        open_store("http://127.0.0.1:1", timeout_s=timeout_s)


def test_files_that_can_not_work_are_refused(tmp_path: Path) -> None:
    pem = tmp_path / "some.crt"
    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    text = tmp_path / "text"
    text.write_text("hello")
    for files, words in (
        ({}, "CA file"),
        ({"ca": tmp_path / "missing"}, "missing can not be read: No such file"),
        ({"ca": tmp_path}, "can not be read: Is a directory"),
        ({"ca": text}, "text is not a PEM file"),
        ({"ca": pem, "cert": pem}, "belong together"),
        ({"ca": pem, "key": str(pem)}, "belong together"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            open_store("https://127.0.0.1:1", **files)
    with pytest.raises(ConfigurationError, match="not https"):
        open_store("http://127.0.0.1:1", ca=pem)
