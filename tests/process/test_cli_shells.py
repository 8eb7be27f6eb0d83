"""Real shells complete lochness's words: bash, zsh and fish, each at a terminal of its own; and man shows its pages.

Names are not completed here: they are asked of the controller for a second at most, which a busy machine may not keep.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.unit.cli.fake_controller import FakeController, serving

PYTHON = [sys.executable, "-c", "from lochness.cli.main import main; main()"]
#: How each shell is started without what its user has set, and what makes it complete, and then say 42.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(lochness completion bash); echo is-ready-$((6*7))"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -Uz compinit; compinit -u -D; source <(lochness completion zsh); echo is-ready-$((6*7))",
    ),
    "fish": (["fish", "--no-config", "-i"], "lochness completion fish | source; echo is-ready-(math 6 '*' 7)"),
}
LIMIT_S = 100.0
_CONTROL = re.compile(r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|[()][A-B0-9]|[=>]|\][^\x07]*\x07)|[\x00-\x08\x0b-\x1f]")


class Terminal:
    """A shell at a terminal; types keys and waits for what they bring."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        """Press these keys; what was seen before is forgotten."""
        self._seen = b""
        os.write(self._ours, keys.encode())

    def wait_for(self, words: str) -> None:
        """Wait until `words` can be read on what came since the last keys."""
        deadline_s = time.monotonic() + LIMIT_S
        while words not in self.text:
            assert time.monotonic() < deadline_s, f"no {words!r} in {self.text!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._seen += os.read(self._ours, 65536)

    @property
    def text(self) -> str:
        return _CONTROL.sub("", self._seen.decode(errors="replace"))


@pytest.fixture
def controller() -> Iterator[FakeController]:
    fake = FakeController()
    with serving(fake):
        yield fake


@pytest.fixture
def environment(controller: FakeController, tmp_path: Path) -> dict[str, str]:
    """Where `lochness` is a program on the path."""
    program = tmp_path / "bin/lochness"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom lochness.cli.main import main\nmain()\n")
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "PYTHONPATH": os.getcwd(),
        "LOCHNESS_SERVER": controller.url,
        "XDG_CONFIG_HOME": str(tmp_path),
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
    }


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_what_was_begun(shell: str, controller: FakeController, environment: dict[str, str]):
    controller.add("guests", "web1")
    command, preparation = SHELLS[shell]
    with Terminal(command, environment) as terminal:
        terminal.type(f"{preparation}\n")
        terminal.wait_for("is-ready-42")
        # Carried out, so that what was completed is what counts, and not how a shell draws it.
        terminal.type("lochness gu\tshow web1\n")
        terminal.wait_for("name: web1")


@pytest.mark.timeout(240)
def test_man_shows_every_page_without_a_warning(tmp_path: Path):
    environment = {**os.environ, "LANG": "C.UTF-8", "SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, "-m", "lochness.cli.manual", str(tmp_path)]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert (made.returncode, made.stderr) == (0, "")
    pages = sorted((tmp_path / "man").glob("*.1"))
    assert len(pages) > 20
    told = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True, timeout=100, check=False
    )
    assert (told.returncode, told.stdout + told.stderr) == (0, "")
    for page in (tmp_path / "man/lochness.1", tmp_path / "man/lochness-guest.1"):
        command = ["man", "--local-file", "--warnings=w", str(page)]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert page.stem.upper() in shown.stdout
