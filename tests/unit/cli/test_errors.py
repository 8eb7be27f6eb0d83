"""Whatever goes wrong is one clear line and a documented exit status, for every command there is."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from lochness.backup import backup_lines
from lochness.cli import exits
from lochness.cli.app import app
from lochness.cli.catalog import COMMANDS as SINGLE_COMMANDS
from lochness.cli.catalog import NOUNS
from lochness.store.protocol import Reading
from tests.unit.cli.conftest import Lochness
from tests.unit.cli.fake_controller import FakeController, answering, free_port, hang_up, http, serving

ID = "11111111-1111-4111-8111-111111111111"
VALUES = {"file": "/dev/null", "name": "ci"}
#: What commands need beside what their signatures require.
NEEDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("flavor", "create"): ("--image", ID, "--memory", "64"),
    ("guest", "create"): ("--flavor", ID, "--network", ID),
    ("image", "create"): ("--source", "file:///x"),
    ("subnet", "create"): ("--cidr", "10.0.0.0/24", "--start", "10.0.0.5", "--end", "10.0.0.9"),
    ("vlan", "create"): ("--tag", "100"),
    ("vlan", "modify"): ("--description", "office"),
    ("config", "set"): ("a=b",),
    ("explain",): ("--flavor", ID, "--network", ID),
    ("events",): ("--follow",),
    **{(noun, "modify"): ("-m", "a=b") for noun in ("flavor", "fwgroup", "guest", "hv", "image", "network", "subnet")},
    ("vlangroup", "modify"): ("-m", "a=b"),
}  # fmt: skip


def every_command(of: Callable[[Any], bool]) -> Iterator[tuple[str, ...]]:
    """Each command of the program that is one `of` those, with the fewest arguments that it takes."""
    named: list[tuple[list[str], Any]] = []
    for noun, entry in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]  # it is a group
        verbs = getattr(entry, "commands", None)
        named += [([noun], entry)] if verbs is None else [([noun, verb], command) for verb, command in verbs.items()]
    for name, command in named:
        if of(command):
            words = list(name)
            needs = NEEDS.get(tuple(name), ())
            for parameter in command.params:
                if parameter.required and (tuple(name), parameter.name) != (("config", "set"), "settings"):
                    is_argument = parameter.param_type_name == "argument"
                    value = VALUES.get(parameter.name, ID)
                    words += [value] if is_argument else [parameter.opts[0], value]
            yield (*words, *needs)


def works_on_the_store(command: Any) -> bool:
    return any(parameter.name == "etcd" for parameter in command.params)


def name_of(words: tuple[str, ...]) -> list[str]:
    """The words that name the command itself: a noun and its verb, or one word."""
    return list(words[:2] if words[0] in NOUNS else words[:1])


#: Nouns that need no controller.
LOCAL_NOUNS = {"context", "completion"}

COMMANDS = sorted(
    words for words in every_command(lambda command: not works_on_the_store(command)) if words[0] not in LOCAL_NOUNS
)
LOCAL_COMMANDS = sorted(words for words in every_command(lambda _: True) if words[0] in LOCAL_NOUNS)
STORE_COMMANDS = sorted(every_command(works_on_the_store))


def each_command(function):
    return pytest.mark.parametrize("words", COMMANDS, ids=" ".join)(function)


def each_command_at_all(function):
    return pytest.mark.parametrize("words", [*COMMANDS, *STORE_COMMANDS, *LOCAL_COMMANDS], ids=" ".join)(function)


@pytest.mark.parametrize("words", STORE_COMMANDS, ids=" ".join)
def test_a_dead_etcd_is_one_line_and_status_6(lochness: Lochness, words: tuple[str, ...], tmp_path):
    file = tmp_path / "file"
    if words[0] == "restore":
        empty = Reading(7, ((),))
        file.write_bytes(b"".join(backup_lines(empty, "2026-01-01T00:00:00Z")))
    words = tuple(str(file) if word == VALUES["file"] else word for word in words)
    ended = lochness(*words, "--etcd", f"http://127.0.0.1:{free_port()}")
    assert (ended.status, ended.out) == (exits.UNREACHABLE, "")
    assert is_one_line(ended.err)
    assert "Connection refused" in ended.err
    assert file.exists() == (words[0] == "restore")


@pytest.mark.parametrize("words", STORE_COMMANDS, ids=" ".join)
def test_an_etcd_that_is_no_url_is_one_line_and_status_2(lochness: Lochness, words: tuple[str, ...], tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"".join(backup_lines(Reading(7, ((),)), "2026-01-01T00:00:00Z")))
    words = tuple(str(file) if word == VALUES["file"] else word for word in words)
    ended = lochness(*words, "--etcd", "rack1")
    assert (ended.status, ended.out) == (exits.USAGE, "")
    assert is_one_line(ended.err)
    assert "rack1" in ended.err


def is_one_line(text: str) -> bool:
    return text.startswith("lochness: ") and text.count("\n") == 1 and text.endswith("\n")


@each_command
def test_a_dead_server_is_one_line_and_status_6(lochness: Lochness, words: tuple[str, ...]):
    port = free_port()
    ended = lochness("--server", f"http://127.0.0.1:{port}", *words)
    assert (ended.status, ended.out) == (exits.UNREACHABLE, "")
    assert set(ended.err.splitlines()) == {f"lochness: http://127.0.0.1:{port} is not reached: connection refused"}


GARBAGE = {
    "a web page": http(b"<html>hello</html>"),
    "an error page": http(b"<html>Bad Gateway</html>", "502 Bad Gateway"),
    "another shape": http(b'[1, {"id": 2}]'),
    "nothing": http(b""),
    "no HTTP": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    "a hang-up": hang_up,
    "cut off": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n[{"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_server_that_answers_garbage_is_told_for_every_command(lochness: Lochness, kind: str):
    with answering(GARBAGE[kind]) as url:
        for words in COMMANDS:
            ended = lochness("--server", url, *words)
            assert ended.status in (exits.UNREACHABLE, exits.FAILED), (words, ended)
            assert ended.out == ""
            assert is_one_line(ended.err), (words, ended)
            assert url in ended.err


@each_command_at_all
def test_arguments_that_mean_nothing_are_refused(
    lochness: Lochness, controller: FakeController, words: tuple[str, ...]
):
    ended = lochness("--server", controller.url, *words, "--no-such-option")
    assert ended.status == exits.USAGE
    assert is_one_line(ended.err)
    assert "--no-such-option" in ended.err


@each_command
def test_ids_that_mean_nothing_change_nothing(lochness: Lochness, controller: FakeController, words: tuple[str, ...]):
    nonsense = [word.replace(ID, "no/such\x1b[31m\nthing") for word in words]
    ended = lochness("--server", controller.url, *nonsense)
    if nonsense != list(words):
        assert ended.status in (exits.NOT_FOUND, exits.USAGE)
        assert is_one_line(ended.err)
        assert "\x1b" not in ended.err
        assert not any(controller.objects.values())


@each_command
def test_what_does_not_exist_is_status_4(lochness: Lochness, controller: FakeController, words: tuple[str, ...]):
    if ID in words and words[1] != "create" and words[0] not in ("job", "explain"):
        ended = lochness("--server", controller.url, *words)
        assert ended.status == exits.NOT_FOUND
        assert is_one_line(ended.err)
        assert ID in ended.err


def test_golden_lines(lochness: Lochness, controller: FakeController):
    twins = sorted(controller.add("guests", "twin") for _ in range(2))
    busy = controller.add("hypervisors", "busy")
    controller.add("guests", "cold", hypervisor="")
    controller.parts[f"{busy}/guests"] = {str(uuid.uuid4()): ""}
    golden = {
        ("guest", "show", "web"): (4, "guest 'web' does not exist"),
        ("guest", "show", ID): (4, f"guest '{ID}' does not exist"),
        ("guest", "show", "twin"): (2, f"the name 'twin' is ambiguous, 2 guests have it: {', '.join(twins)}"),
        ("hv", "delete", "busy"): (5, f"hypervisor {busy} has 1 guest"),
        ("network", "create", "-m", "refuse=1"): (2, "metadata.refuse is refused"),
        ("network", "create", "-m", "novalue"): (2, "metadata must be KEY=VALUE, got 'novalue'"),
        ("flavor", "create", "--image", ID): (2, "Missing option '--memory' (see lochness flavor create --help)"),
        ("flavor", "modify", ID): (2, "nothing to change was given (see lochness flavor modify --help)"),
        ("network", "create", "{"): (2, "a spec must be a JSON object, got '{': Input data was truncated"),
        ("network", "create", "5"): (2, "a spec must be a JSON object, got '5': Expected `object`, got `int`"),
        ("network", "create", "{}", "{}", "--id", ID): (2, "--id is for one object, not for several"),
        ("network", "modify", "{}"): (2, "a spec to modify by needs the id of a network"),
        ("vlan", "show", "4096"): (2, "tag must be a number from 1 to 4095, got '4096'"),
        ("vlan", "show", "office"): (4, "vlan 'office' does not exist"),
        ("vlangroup", "tags", "office", "--set", "1"): (4, "vlangroup 'office' does not exist"),
        ("fwgroup", "create", "--rule", "allow"): (
            2,
            "a rule is ACTION PROTOCOL [PORT[-PORT]] [from CIDR|GROUP], with allow or deny as ACTION; got 'allow'",
        ),
        ("fwgroup", "create", "--rule", "deny tcp 90-80"): (
            2,
            "ports are 0 to 65535, the first before the last; got 'deny tcp 90-80'",
        ),
        ("fwgroup", "create", "--rule", "deny tcp 80 from web"): (4, "fwgroup 'web' does not exist"),
        ("config", "show", "nothing"): (4, "setting 'nothing' does not exist"),
        ("config", "set", "nothing"): (2, "setting must be KEY=VALUE, got 'nothing'"),
        ("config", "delete", "nothing"): (4, "setting 'nothing' does not exist"),
        ("guest", "address", "cold"): (1, "guest cold has no address yet: it is unplaced"),
        ("guest", "wait", "cold", "--timeout", "0.1"): (7, "guest cold is unplaced, not running, after 0.1 s"),
        ("token", "create", "--name", "a", "--ttl", "soon"): (
            2,
            "a span is a number and s, min, h, d or w, such as 90d; got 'soon'",
        ),
        ("token", "delete", "nobody"): (4, "token 'nobody' does not exist"),
        ("explain",): (2, "name a guest, or --flavor and --network (see lochness explain --help)"),
        ("events",): (2, "say --follow, or --since REVISION (see lochness events --help)"),
        ("hv", "config", "busy", "=x"): (2, "setting must be KEY=VALUE, got '=x'"),
        ("hv", "create", "--id", "rack1"): (2, "id must be a UUID, got 'rack1'"),
        ("job", "show", "latest"): (2, "a job's id is a UUID, got 'latest'"),
        ("guest", "create", "--flavor", "big", "--network", "lan"): (4, "flavor 'big' does not exist"),
        ("guest", "create", "--flavor", "big"): (2, "Missing option '--network' (see lochness guest create --help)"),
        ("guest", "explode", "web"): (2, "No such command 'explode' (see lochness guest --help)"),
        ("guest", "show", "\udcff"): (2, "an argument is not UTF-8 text"),
        ("guest", "wait", "cold", "--timeout", "soon"): (
            2,
            "Invalid value for '--timeout': 'soon' is not a number (see lochness guest wait --help)",
        ),
        ("events", "--since", "1.5"): (
            2,
            "Invalid value for '--since': '1.5' is not a whole number (see lochness events --help)",
        ),
        ("guest", "show"): (2, "Missing argument 'ID|NAME...' (see lochness guest show --help)"),
    }
    for words, (status, line) in golden.items():
        ended = lochness("--server", controller.url, *words)
        assert (ended.status, ended.err, ended.out) == (status, f"lochness: {line}\n", "")


@pytest.mark.parametrize("server", ["http://me:secret@rack1", "http://rack1/?a=b", "http://rack1#part"])
def test_a_server_of_which_not_all_would_be_used(lochness: Lochness, server: str):
    line = "the server's URL can have no user, password, query or fragment"
    for words in (("--server", server, "hv", "list"), ("context", "set", "lab", "--server", server)):
        ended = lochness(*words)
        assert (ended.status, ended.err) == (2, f"lochness: {line}\n")


@pytest.mark.parametrize(
    "server", ["", "rack1", "ftp://rack1", "http://", "http://rack1:99999", "http://[::1", "http://a b"]
)
def test_a_server_that_is_no_url(lochness: Lochness, server: str):
    ended = lochness("--server", server, "hv", "list")
    assert ended.status == exits.USAGE
    assert ended.err == f"lochness: the server must be a URL like http://127.0.0.1:17000, got {server!r}\n"


def test_one_failure_of_several_does_not_stop_the_others(lochness: Lochness, controller: FakeController):
    first, second = controller.add("networks", "a"), controller.add("networks", "b")
    ended = lochness("--server", controller.url, "-o", "id", "network", "delete", "a", "nothing", "b")
    assert ended.status == exits.NOT_FOUND
    assert ended.out.split() == [first, second]
    assert controller.objects["networks"] == {}


def test_a_refused_change_without_an_answer_is_ambiguous(lochness: Lochness):
    with answering(hang_up) as url:
        ended = lochness("--server", url, "network", "create")
    assert ended.status == exits.FAILED
    assert "it may have been done; look before repeating it" in ended.err


def test_the_documented_statuses_are_those_of_the_help(lochness: Lochness):
    ended = lochness("--help")
    assert ended.status == 0
    told = " ".join(ended.out.split())
    assert exits.EXIT_STATUS_HELP in told
    for status in (
        exits.FAILED,
        exits.USAGE,
        exits.NOT_ALLOWED,
        exits.NOT_FOUND,
        exits.CONFLICT,
        exits.UNREACHABLE,
        exits.LIMIT,
    ):
        assert f" {status} " in exits.EXIT_STATUS_HELP
        assert f"\n    {status}  " in (exits.__doc__ or "")


@pytest.mark.parametrize("noun", ["", *NOUNS])
def test_a_noun_without_its_verb_shows_what_there_is(lochness: Lochness, noun: str):
    ended = lochness(*noun.split())
    assert ended.status == exits.USAGE
    assert "Commands:" in ended.err + ended.out


def test_the_help_of_the_whole_says_what_the_parts_say(lochness: Lochness):
    for name, entry in NOUNS.items():
        assert entry.help in lochness(name, "--help").out
    for name, entry in SINGLE_COMMANDS.items():
        words = " ".join(lochness(name, "--help").out.split())
        assert entry.help.rstrip(".") in words


@each_command_at_all
def test_every_help_has_an_example_of_that_command(lochness: Lochness, words: tuple[str, ...]):
    name = name_of(words)
    ended = lochness(*name, "--help")
    assert ended.status == 0
    assert f"  Example: lochness {' '.join(name)}" in ended.out


def test_a_port_that_was_free_is_refused():
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port()), timeout=1)


def test_the_environment_names_the_server_too():
    """LOCHNESS_SERVER is declared once, for all commands."""
    root = typer.main.get_command(app)
    assert {parameter.name: parameter.envvar for parameter in root.params}["server"] == "LOCHNESS_SERVER"


def test_serving_ends_with_its_block():
    controller = FakeController()
    with serving(controller) as url:
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1)
