"""Which controller is meant, with which token and CA; and what is said when one of them is wrong."""

from __future__ import annotations

import io
import json
import os
import ssl
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness.cli import exits
from lochness.cli.contexts import Connection, Contexts, Given, connection, read_contexts, rendered, write_contexts
from lochness.errors import NotFoundError
from lochness_lab.certificates import CertificateAuthority
from tests.unit.cli.conftest import Lochness
from tests.unit.cli.fake_controller import FakeController, serving

PROD = Connection("https://prod:17000", "prod-token", "/prod.pem", "prod")
LAB = Connection("http://lab:17000", context="lab")
KNOWN = Contexts("prod", {"prod": PROD, "lab": LAB})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Given(), PROD),
        (Given(context="lab"), LAB),
        (Given(server="http://other"), Connection("http://other")),
        (Given(server="https://prod:17000/", context="prod"), PROD),
        (Given(server="http://other", context="prod"), Connection("http://other")),
        (Given(token="mine"), Connection(PROD.server, "mine", PROD.ca, "prod")),
        (Given(server="http://other", token="mine"), Connection("http://other", "mine")),
        (Given(token="", ca=""), Connection(PROD.server, "", "", "prod")),
    ],
)
def test_the_controller_that_is_meant(given: Given, expected: Connection):
    assert connection(given, KNOWN) == expected


def test_without_anything_it_is_the_one_on_this_machine():
    assert connection(Given(), Contexts()) == Connection("http://127.0.0.1:17000")


def test_an_unknown_context_is_told_with_those_that_are_there():
    with pytest.raises(NotFoundError) as error:
        connection(Given(context="stage"), KNOWN)
    assert error.value.message == (
        "context 'stage' does not exist; there are: lab, prod (lochness context set makes one)"
    )


def test_what_is_written_is_read_back(tmp_path: Path):
    file = tmp_path / "a" / "config.toml"
    strange = Connection("http://x", 'to"k\\en', "/c a\u202e\t\x7f.pem", "a.b")
    known = Contexts("a.b", {"a.b": strange, "lab": LAB})
    write_contexts(known, file)
    assert read_contexts(file) == known
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ["config.toml"]
    assert rendered(read_contexts(file)) == file.read_text()


def test_the_life_of_a_context(lochness: Lochness, controller: FakeController, home: Path):
    controller.token = "sesame"
    controller.add("networks", "lan")
    assert lochness("context", "list").out.split() == ["CURRENT", "NAME", "SERVER", "TOKEN", "CA"]
    ended = lochness("context", "set", "lab", "--server", f"{controller.url}/", "--token", "sesame")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == f"lochness: {controller.url} is not encrypted: whoever is on the way there can read the token\n"
    assert stat.S_IMODE((home / "config.toml").stat().st_mode) == 0o600
    assert lochness("network", "list").out.split()[-2] == "lan"
    lochness("context", "set", "dead", "--server", "http://127.0.0.1:9")
    assert json.loads(lochness("context", "show", "-j").out) == {
        "id": "lab", "current": True, "server": controller.url, "token": "set", "ca": "",
    }  # fmt: skip
    assert lochness("context", "use", "dead").status == 0
    assert lochness("network", "list").status == exits.UNREACHABLE
    assert lochness("--context", "lab", "network", "list").status == 0
    assert lochness("network", "list", "--context", "lab").status == 0
    assert lochness("context", "list", "-o", "id").out.split() == ["dead", "lab"]
    assert lochness("context", "delete", "dead").status == 0
    assert lochness("context", "list", "-o", "id").out.split() == ["lab"]
    assert "sesame" not in lochness("context", "list", "-j").out + lochness("context", "show").out


def test_the_environment_wins_over_the_context_and_flags_over_both(
    lochness: Lochness, controller: FakeController, home: Path, tmp_path: Path
):
    controller.token = "sesame"
    lochness("context", "set", "dead", "--server", "http://127.0.0.1:9", "--token", "of the dead".replace(" ", "-"))
    os.environ["LOCHNESS_SERVER"] = controller.url
    assert lochness("network", "list").status == exits.NOT_ALLOWED
    os.environ["LOCHNESS_TOKEN"] = "wrong"
    assert lochness("network", "list").status == exits.NOT_ALLOWED
    assert lochness("network", "list", "--token", "sesame").status == 0
    (tmp_path / "token").write_text("sesame\n")
    assert lochness("--token", f"@{tmp_path}/token", "network", "list").status == 0
    assert lochness("network", "list", "--server", "http://127.0.0.1:9").status == exits.UNREACHABLE
    os.environ["LOCHNESS_TOKEN"] = "sesame"
    assert lochness("network", "list").status == 0


def test_a_token_from_standard_input_is_kept_and_not_shown(lochness: Lochness, controller: FakeController):
    controller.token = "sesame"
    before, sys.stdin = sys.stdin, io.StringIO("sesame\n")
    try:
        lochness("context", "set", "lab", "--server", controller.url, "--token", "-")
    finally:
        sys.stdin = before
    assert lochness("network", "list").status == 0


def test_a_token_file_is_read_at_each_use(lochness: Lochness, controller: FakeController, tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("old\n")
    lochness("context", "set", "lab", "--server", controller.url, "--token", f"@{file}")
    controller.token = "new"
    assert lochness("network", "list").status == exits.NOT_ALLOWED
    file.write_text("new\n")
    assert lochness("network", "list").status == 0


def test_a_file_that_others_can_read_is_told(lochness: Lochness, controller: FakeController, home: Path):
    lochness("context", "set", "lab", "--server", controller.url, "--token", "x")
    (home / "config.toml").chmod(0o644)
    ended = lochness("network", "list")
    file = home / "config.toml"
    assert (ended.status, ended.err) == (
        0, f"lochness: {file} holds a token and others can read it: chmod 600 {file}\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("current = ", " is not valid TOML: Invalid value (at end of document)"),
        ("current = '\udcff'", " is not valid TOML: it is not UTF-8"),
        ("[contexts.lab]\nserver = 1", ": contexts.lab must be a table of strings"),
        ('[contexts.lab]\nserwer = "x"', ": unknown setting 'serwer' in contexts.lab; known: ca, server, token"),
        ('curent = "lab"', ": unknown setting 'curent'; known: contexts, current"),
        ('current = "lab"', ": the current context 'lab' is not among contexts"),
        ("current = 5", ": current must be a string and contexts a table"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(lochness: Lochness, home: Path, content: str, line: str):
    home.mkdir(parents=True)
    (home / "config.toml").write_text(content, errors="surrogateescape")
    for words in (("network", "list"), ("context", "list"), ("context", "show")):
        ended = lochness(*words)
        assert (ended.status, ended.out) == (exits.USAGE, "")
        assert ended.err == f"lochness: {home / 'config.toml'}{line}\n"
    assert lochness("--help").status == 0


def test_a_home_that_cannot_be_written_is_one_line(lochness: Lochness, home: Path):
    home.parent.mkdir(parents=True)
    home.write_text("a file where the directory belongs\n")
    ended = lochness("context", "set", "lab", "--server", "http://lab")
    assert (ended.status, ended.err) == (2, f"lochness: cannot read {home}/config.toml: Not a directory\n")
    home.unlink()
    home.symlink_to("/proc/nowhere")
    ended = lochness("context", "set", "lab", "--server", "http://lab")
    assert ended.status == 2
    assert ended.err == "lochness: cannot write /proc/nowhere/config.toml: No such file or directory\n"


def test_golden_lines(lochness: Lochness, controller: FakeController, home: Path, tmp_path: Path):
    (tmp_path / "no.pem").write_text("no certificate\n")
    (tmp_path / "empty").write_text("\n")
    lochness("context", "set", "lab", "--server", "https://lab", "--token", "x")
    golden = {
        ("context", "use", "prod"): (
            4, "context 'prod' does not exist; there are: lab (lochness context set makes one)",
        ),
        ("context", "delete", "prod"): (
            4, "context 'prod' does not exist",
        ),
        ("context", "set", "a b", "--server", "http://x"): (
            2, "a context's name is of letters, digits, '.', '_' and '-', at most 64, got 'a b'",
        ),
        ("context", "set", "prod"): (2, "the context 'prod' is new and needs --server"),
        ("context", "set", "prod", "--server", "x"): (
            2, "the server must be a URL like http://127.0.0.1:17000, got 'x'",
        ),
        ("context", "set", "lab", "--server", "https://other"): (
            2, "the token of 'lab' is for https://lab; give --token for the other server too",
        ),
        ("context", "set", "lab", "--ca", f"{tmp_path}/none"): (
            2, f"cannot use the CA file {tmp_path}/none: No such file or directory",
        ),
        ("context", "set", "lab", "--ca", f"{tmp_path}/no.pem"): (
            2, f"cannot use the CA file {tmp_path}/no.pem: there is no PEM certificate in it",
        ),
        ("context", "set", "lab", "--token", "two words"): (
            2, "the token must be at most 4096 printable ASCII characters, without spaces",
        ),
        ("context", "set", "lab", "--token", f"@{tmp_path}/none"): (
            2, f"cannot read the token file {tmp_path}/none: No such file or directory",
        ),
        ("--token", f"@{tmp_path}/empty", "network", "list"): (2, f"the token file {tmp_path}/empty is empty"),
        ("--context", "prod", "network", "list"): (
            4, "context 'prod' does not exist; there are: lab (lochness context set makes one)",
        ),
    }  # fmt: skip
    before = (home / "config.toml").read_bytes()
    for words, (status, line) in golden.items():
        ended = lochness(*words)
        assert (ended.status, ended.err, ended.out) == (status, f"lochness: {line}\n", "")
    assert (home / "config.toml").read_bytes() == before


def test_a_refused_token_is_one_line(lochness: Lochness, controller: FakeController):
    controller.token = "sesame"
    ended = lochness("--server", controller.url, "network", "list")
    assert (ended.status, ended.err) == (
        3, f"lochness: {controller.url} wants a token, and none was given: a token is needed\n",
    )  # fmt: skip
    ended = lochness("--server", controller.url, "--token", "pumpkin", "network", "create")
    assert (ended.status, ended.err) == (
        3, f"lochness: {controller.url} refuses the token: this token is not known\n",
    )  # fmt: skip
    assert controller.objects["networks"] == {}


def test_an_old_controller_is_one_line(lochness: Lochness, controller: FakeController):
    del controller.objects["images"]
    ended = lochness("--server", controller.url, "image", "list")
    assert (ended.status, ended.err) == (
        6, f"lochness: {controller.url} does not know GET /images: that controller is older than this command\n",
    )  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def encrypted(authority: CertificateAuthority) -> Iterator[FakeController]:
    certificate = authority.issue("server", "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.cert, certificate.key)
    fake = FakeController()
    with serving(fake, tls):
        yield fake


def test_tls_with_a_ca_of_ones_own(lochness: Lochness, encrypted: FakeController, authority: CertificateAuthority):
    assert lochness("--server", encrypted.url, "--ca", str(authority.ca), "network", "list").status == 0
    assert lochness("context", "set", "lab", "--server", encrypted.url, "--ca", str(authority.ca)).status == 0
    assert lochness("network", "list").status == 0
    ended = lochness("network", "list", "--server", encrypted.url, "--ca", "")
    untrusted = "is not reached: its certificate is not trusted: "
    why = "unable to get local issuer certificate"
    assert (ended.status, ended.err) == (6, f"lochness: {encrypted.url} {untrusted}{why}\n")
    by_name = encrypted.url.replace("127.0.0.1", "localhost")
    ended = lochness("network", "list", "--server", by_name, "--ca", str(authority.ca))
    why = "Hostname mismatch, certificate is not valid for 'localhost'."
    assert (ended.status, ended.err) == (6, f"lochness: {by_name} {untrusted}{why}\n")


def test_the_wrong_scheme_is_one_line(
    lochness: Lochness, controller: FakeController, encrypted: FakeController, authority: CertificateAuthority
):
    ended = lochness("network", "list", "--server", controller.url.replace("http:", "https:"))
    assert ended.status == exits.UNREACHABLE
    assert ended.err.endswith("is not reached: it does not speak TLS; is it http://?\n")
    ended = lochness("network", "list", "--server", encrypted.url.replace("https:", "http:"))
    assert ended.status == exits.UNREACHABLE
    assert ended.err.count("\n") == 1
