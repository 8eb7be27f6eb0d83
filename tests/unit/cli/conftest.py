from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
def lochness(capsys: pytest.CaptureFixture[str]) -> Lochness:
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
