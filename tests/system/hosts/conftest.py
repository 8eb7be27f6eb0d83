"""One laboratory of whole hosts for all tests here; each leaves it whole, and every promise of the store kept.

What a test measures it hands to `measured`; the figures are told at the end of the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness_lab.hosts.laboratory import Laboratory
from tests.system.hosts.world import FIGURES, measured, recover


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("measured")
        for figure in FIGURES:
            terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def whole_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """The laboratory that LOCHNESS_LAB names, when one is up there (lochness-lab up --empty), else one of our own."""
    standing = os.environ.get("LOCHNESS_LAB")
    if standing and Laboratory(Path(standing)).is_up:
        lab = Laboratory(Path(standing))
        recover(lab)
        yield lab
        return
    lab = Laboratory(tmp_path_factory.mktemp("lab") / "d", dist=Path(__file__).parents[3] / "dist", tell=print)
    try:
        with measured("three hypervisors and a controller boot until every daemon is ready"):
            lab.up(3, ends_with_us=True)
        lab.register()
        yield lab
    finally:
        lab.down()


@pytest.fixture
def lab(whole_lab: Laboratory) -> Iterator[Laboratory]:
    """The laboratory, whole; what a test breaks is mended after it, and the store's promises are checked."""
    yield whole_lab
    recover(whole_lab)
    for guest in whole_lab.records("guest", "list"):
        whole_lab.records("guest", "delete", guest["id"], "--wait")
    assert whole_lab.fsck() == ""
    assert [host.domains() for host in whole_lab.hypervisors] == [{}] * len(whole_lab.hypervisors)
