"""The command `lochness` as a process: quick to start, quiet when interrupted, at home in pipes and on terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from threading import Event

import pytest

from tests.unit.cli.fake_controller import JOB_ID, FakeController, serving

LOCHNESS = [sys.executable, "-c", "from lochness.cli.main import main; main()"]
#: What would make every command slow to start.
HEAVY = {"httpx", "rich", "ssl", "asyncio", "structlog", "etcd3", "grpc", "litestar"}


@pytest.fixture
def controller() -> Iterator[FakeController]:
    fake = FakeController()
    with serving(fake):
        yield fake


def environment(controller: FakeController) -> dict[str, str]:
    return {**os.environ, "LOCHNESS_SERVER": controller.url}


def loaded_by(*words: str) -> tuple[str, set[str]]:
    """What a command line says, and the modules that it has loaded."""
    program = (
        "import sys\nfrom lochness.cli.main import main\n"
        f"try: main({list(words)})\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    return done.stdout, set(done.stderr.split())


def test_help_loads_nothing_heavy():
    said, modules = loaded_by("guest", "create", "--help")
    assert "Usage: lochness guest create" in said
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()


def test_the_help_of_the_whole_loads_no_command():
    said, modules = loaded_by("--help")
    assert "Usage: lochness" in said
    own = {name for name in modules if name.startswith("lochness")}
    assert own <= {
        "lochness", "lochness.defaults", "lochness.errors", "lochness.ids", "lochness.cli", "lochness.cli.main",
        "lochness.cli.app", "lochness.cli.catalog", "lochness.cli.command", "lochness.cli.contexts",
        "lochness.cli.exits", "lochness.cli.output", "lochness.cli.session",
    }  # fmt: skip
    assert {name.partition(".")[0] for name in modules} & {*HEAVY, "msgspec", "tomllib"} == set()


def test_ctrl_c_while_waiting_is_status_130_and_says_how_to_go_on(controller: FakeController):
    controller.job_states = [{"status": "working", "action": "fetch"}]
    command = [*LOCHNESS, "job", "wait", JOB_ID]
    with subprocess.Popen(command, env=environment(controller), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"job {JOB_ID}: fetch\n"
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=10)
    assert process.returncode == 130
    assert rest == f"lochness: interrupted; the job goes on: lochness job wait {JOB_ID}\n"


def test_ctrl_c_at_any_moment_of_a_command_is_no_traceback(controller: FakeController):
    for delay_ms in range(20, 400, 40):
        command = [sys.executable, "-c", "from lochness.cli.main import main; print('up', flush=True); main()"]
        with subprocess.Popen(
            [*command, "guest", "list"],
            env=environment(controller),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            Event().wait(delay_ms / 1000)  # the moment is what is tested, whatever happens at it
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
        assert process.returncode in (0, 130)
        assert "Traceback" not in said
        assert said in ("", "lochness: interrupted\n")


def test_a_reader_that_goes_is_no_failure_worth_words(controller: FakeController):
    for number in range(5000):
        controller.add("guests", f"guest-{number}")
    with subprocess.Popen(
        [*LOCHNESS, "guest", "list"],
        env=environment(controller),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("NAME")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(10) == 141


def test_a_terminal_sees_a_live_line_that_goes_away(controller: FakeController):
    controller.job_states = [{"status": "working", "action": "fetch"}] * 4 + [{"status": "done", "action": "create"}]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*LOCHNESS, "job", "wait", JOB_ID],
        env={**environment(controller), "TERM": "xterm", "COLUMNS": "120"},
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        deadline_s = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline_s:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the terminal's other end is closed: the process has ended
                    break
        assert process.wait(10) == 0
    os.close(ours)
    text = seen.decode()
    assert f"job {JOB_ID}: fetch" in text
    assert "done in " in text
    assert "Traceback" not in text


def test_top_has_a_screen_of_its_own_and_ctrl_c_ends_it(controller: FakeController):
    controller.add("hypervisors", "rack1-a", alive=True)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*LOCHNESS, "top", "--interval", "0.2"],
        env={**environment(controller), "TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        deadline_s = time.monotonic() + 30
        while seen.count(b"rack1-a") < 2 and time.monotonic() < deadline_s:
            if select.select([ours], [], [], 0.05)[0]:
                seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        while time.monotonic() < deadline_s:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
        assert process.wait(10) == 0
    os.close(ours)
    assert seen.startswith(b"\x1b[?1049h")
    assert b"hypervisors: 1, 1 alive" in seen
    assert seen.rstrip().endswith(b"\x1b[?1049l")
