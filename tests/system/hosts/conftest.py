"""Laboratories of whole hosts for the tests here, and what the hosts said when one of them fails.

1. `lab` is one of three hypervisors for all tests of `make test-system`; each leaves it whole, and every promise of the
   store kept. `small_lab`, of two, is for the brief tests, which `make test` runs.
2. What a laboratory is made of (packages, Debian, image) is made when it is not there. In `make test` that begins with
   the run, beside other tests, and the brief tests come after a part of these: few then wait for it.
3. A laboratory ends with the test process, however that ends. It is one of our own: no other that is up is touched, but
   for the one that LOCHNESS_TEST_LAB names.

What a test measures it hands to `measured`; the figures are told at the end of the run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from lochness.errors import LochnessError
from lochness_lab.hosts import commands
from lochness_lab.hosts.laboratory import Laboratory
from lochness_lab.processes import Process
from tests.system.hosts.world import FIGURES, account, measured, recover

CHECKOUT = Path(__file__).parents[3]
PREPARE = (sys.executable, "-m", "lochness_lab.hosts.command", "--dist", str(CHECKOUT / "dist"), "prepare")
PREPARE_LIMIT_S = 1800
_LABS = ("lab", "small_lab")


@pytest.hookimpl(trylast=True)  # after pytest-randomly's shuffle, and after -m and -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The brief tests go together, in their order in the file, a quarter of the way into what the first process gets.

    pytest-xdist hands each process a run of the list, and lets those that are done take from the end of others' runs.
    """
    brief = sorted(_brief(items), key=lambda item: item.reportinfo()[1] or 0)
    if brief:
        others = [item for item in items if item not in brief]
        processes = getattr(config, "workerinput", {}).get("workercount", 1)
        at = len(others) // (4 * processes)
        items[:] = [*others[:at], *brief, *others[at:]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """One of the test processes begins to prepare; the fixtures do it too, and wait for the one that was first."""
    is_first = getattr(session.config, "workerinput", {}).get("workerid", "gw0") == "gw0"
    if is_first and not session.config.option.collectonly and _brief(session.items):
        log = CHECKOUT / "build" / "prepare.log"
        log.unlink(missing_ok=True)
        preparing = Process.start(PREPARE, log=log, name="lochness-lab prepare", cwd=CHECKOUT)
        session.config.add_cleanup(partial(_stop, preparing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with what the hosts have to say: the laboratory is gone when somebody reads it."""
    report = yield
    values = getattr(item, "funcargs", {})
    lab = next((values[name] for name in _LABS if name in values), None)
    if report.failed and lab is not None:
        report.sections.append(("the hosts", account(lab)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("measured")
        for figure in FIGURES:
            terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def whole_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """The laboratory that LOCHNESS_TEST_LAB names, one up there (lochness-lab up --empty), else one of our own."""
    standing = os.environ.get("LOCHNESS_TEST_LAB")
    if standing and Laboratory(Path(standing)).is_up:
        lab = Laboratory(Path(standing))
        recover(lab)
        yield lab
        return
    with laboratory(tmp_path_factory.mktemp("lab") / "d", 3) as lab:
        yield lab


@pytest.fixture
def lab(whole_lab: Laboratory) -> Iterator[Laboratory]:
    """The laboratory, whole; what a test breaks is mended after it, and the store's promises are checked."""
    yield whole_lab
    recover(whole_lab)
    for guest in whole_lab.records("guest", "list"):
        whole_lab.records("guest", "delete", guest["id"], "--wait")
    assert whole_lab.fsck() == ""
    assert [host.domains() for host in whole_lab.hypervisors] == [{}] * len(whole_lab.hypervisors)


@pytest.fixture(scope="module")
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """Two hypervisors and a management host, for tests that leave every host on; at its end all promises hold."""
    with laboratory(tmp_path_factory.mktemp("brief") / "d", 2) as lab:
        yield lab
        assert lab.fsck() == ""


@contextmanager
def laboratory(directory: Path, hypervisors: int) -> Iterator[Laboratory]:
    """A laboratory in `directory`, with all that a guest needs in its store; gone after the block.

    An error comes with what the hosts have to say.
    """
    commands.run(PREPARE, limit_s=PREPARE_LIMIT_S)
    lab = Laboratory(directory, dist=CHECKOUT / "dist", tell=print)
    try:
        with measured(f"{hypervisors} hypervisors and a controller boot until every daemon is ready"):
            lab.up(hypervisors, ends_with_us=True)
        lab.register()
        yield lab
    except (LochnessError, AssertionError) as error:
        error.add_note(account(lab))
        raise
    finally:
        lab.down()


def _stop(preparing: Process) -> None:
    preparing.stop(limit_s=60)


def _brief(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if item.get_closest_marker("brief")]
