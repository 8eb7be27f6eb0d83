"""Completion and man pages: made of the commands themselves."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lochness.cli.catalog import ENTRIES
from lochness.cli.complete import answer
from lochness.cli.manual import pages
from tests.unit.cli.conftest import Lochness
from tests.unit.cli.fake_controller import FakeController, free_port


def words(*given: str) -> list[str]:
    return answer(["bash", given[-1], *given[:-1]]).splitlines()


def test_nouns_verbs_and_options(home: Path):
    assert words("") == list(ENTRIES)
    assert words("gu") == ["guest"]
    assert words("guest", "sh") == ["show", "shutdown"]
    assert words("guest", "list", "--h") == ["--hypervisor", "--help"]
    assert words("-o", "") == ["table", "json", "id"]
    assert words("guest", "list", "-o", "j") == ["json"]
    assert words("completion", "") == ["bash", "zsh", "fish"]
    assert words("nothing", "") == words("guest", "nothing", "") == []


def test_names_come_from_the_controller(home: Path, controller: FakeController):
    flavor = controller.add("flavors", "small")
    controller.add("guests", "web one")
    bare = controller.add("guests")
    server = ("--server", controller.url)
    assert words(*server, "guest", "create", "--flavor", "") == ["small"]
    assert sorted(words(*server, "guest", "show", "")) == sorted(["'web one'", bare])
    assert words(*server, "guest", "show", "web") == ["'web one'"]
    assert answer(["fish", "", *server, "flavor", "show"]) == f"small\t{flavor}\n"
    assert answer(["zsh", "", *server, "flavor", "show"]) == f"small:{flavor}\n"
    assert words(*server, "network", "add-subnet", "") == []


def test_contexts_are_completed_without_a_controller(lochness: Lochness):
    lochness("context", "set", "lab", "--server", "http://127.0.0.1:9")
    assert words("context", "use", "") == words("--context", "l") == ["lab"]


@pytest.mark.parametrize("given", [[], ["bash"], ["bash", ""], ["bash", "\x1b", "guest", "--"], ["what", "", "guest"]])
def test_nothing_is_ever_an_error(home: Path, given: list[str]):
    answer(given)
    assert words("--server", f"http://127.0.0.1:{free_port()}", "guest", "show", "") == []
    assert words("--server", "nonsense", "guest", "show", "") == []


def test_bash_itself_completes(tmp_path: Path, lochness: Lochness, controller: FakeController):
    controller.add("guests", "web1")
    command = shlex.join([sys.executable, "-c", "from lochness.cli.main import main; main()"])
    script = f"""
    lochness() {{ {command} "$@"; }}
    {lochness("completion", "bash").out}
    complete -p lochness
    COMP_WORDS=(lochness guest show we) COMP_CWORD=3
    _lochness
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {"LOCHNESS_SERVER": controller.url, "XDG_CONFIG_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["complete -o default -F _lochness lochness", "web1"]


def test_every_command_has_a_page_that_says_what_its_help_says(lochness: Lochness):
    made = pages()
    assert set(made) == {"lochness.1", *(f"lochness-{name}.1" for name in ENTRIES)}
    for name in ENTRIES:
        assert f"lochness\\-{name.replace('-', chr(92) + '-')}" in made["lochness.1"]
    page = made["lochness-guest.1"]
    assert "lochness guest create \\-\\-name web1 \\-\\-flavor small" in page
    assert "\\fB\\-\\-hypervisor\\fR" in page
    for text in made.values():
        assert text.startswith(".TH ")
        assert "\b" not in text
