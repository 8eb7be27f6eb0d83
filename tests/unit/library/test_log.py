"""What arrives in the journal, byte for byte, and what is counted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from lochness.log import _JournalFields, configure_logging, get_logger, logged_counts


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """What is configured here is the whole process's, and other tests read what their controllers log."""
    yield
    structlog.reset_defaults()


def journal_entry(**fields: object) -> dict[str, str]:
    """The fields of an entry as journald would store them. Values without line breaks only."""
    datagram = _JournalFields("lochness-guestwatch")(None, "warning", {"level": "warning", **fields})
    return dict(line.split("=", 1) for line in datagram.decode().splitlines())


def test_what_names_a_thing_is_named_as_an_id_in_the_journal():
    entry = journal_entry(event="guestwatch.action_failed", guest="g1", job="j1", hypervisor="h1", reason="fenced")
    assert entry["EVENT"] == "guestwatch.action_failed"
    assert (entry["GUEST_ID"], entry["JOB_ID"], entry["HYPERVISOR_ID"]) == ("g1", "j1", "h1")
    assert (entry["REASON"], entry["PRIORITY"]) == ("fenced", "4")
    assert entry["SYSLOG_IDENTIFIER"] == "lochness-guestwatch"
    assert "guest=g1" in entry["MESSAGE"]


def test_no_field_takes_the_place_of_the_journals_own():
    entry = journal_entry(event="agent.job_finished", message="created", priority="high")
    assert entry["MESSAGE"] == "agent.job_finished message=created priority=high"
    assert (entry["DETAIL"], entry["PRIORITY"]) == ("created", "4")


def test_a_value_of_several_lines_stays_whole():
    datagram = _JournalFields("x")(None, "info", {"event": "a.b", "error": "one\ntwo"})
    assert b"ERROR\n" + (7).to_bytes(8, "little") + b"one\ntwo\n" in datagram


@pytest.mark.parametrize("level", ["info", "warning"])
def test_an_entry_is_counted_where_it_is_written(level: str):
    stream = io.StringIO()
    before = logged_counts().get(("test.counted", level), 0)
    configure_logging("warning", stream=stream)
    getattr(get_logger("test"), level)("test.counted", guest="g1")
    assert logged_counts().get(("test.counted", level), 0) - before == (level == "warning")
    if level == "warning":
        assert json.loads(stream.getvalue())["guest"] == "g1"


def test_a_daemon_does_not_carry_the_terminals_library():
    program = "import sys, lochness.log; assert 'rich' not in sys.modules; import rich.console"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
