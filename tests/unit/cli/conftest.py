from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lochness.cli.main import main
from tests.unit.cli.fake_controller import FakeController, serving


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    status: int
    out: str
    err: str


Lochness = Callable[..., Ended]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of its own for the command: neither contexts nor variables of who runs the tests reach it."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("LOCHNESS_")]:
        del os.environ[name]
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    yield tmp_path / "config" / "lochness"
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def lochness(capsys: pytest.CaptureFixture[str], home: Path) -> Lochness:
    """Run one command line to its end."""

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def controller() -> Iterator[FakeController]:
    fake = FakeController()
    with serving(fake):
        yield fake
