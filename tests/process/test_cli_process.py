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
from pathlib import Path
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


def lochness(controller: FakeController, redirection: str, *words: str) -> tuple[int, str]:
    """Run `lochness` by a shell, with a redirection of it; its status and what it said on standard error."""
    command = ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *LOCHNESS, *words]
    done = subprocess.run(command, env=environment(controller), stderr=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stderr


def test_output_that_cannot_be_written_is_one_line(controller: FakeController):
    full = "lochness: cannot write the output: No space left on device\n"
    assert lochness(controller, ">/dev/full", "guest", "list") == (1, full)
    assert lochness(controller, ">/dev/full", "guest", "list", "--help") == (1, full)


def test_streams_that_are_closed_are_as_if_nobody_was_there(controller: FakeController):
    controller.add("guests", "web1")
    assert lochness(controller, ">&-", "guest", "show", "web1") == (0, "")
    nothing = "lochness: there is nothing on standard input: nothing was done\n"
    assert lochness(controller, "<&-", "guest", "show", "-") == (0, nothing)
    assert lochness(controller, "2>&-", "guest", "show", "nobody") == (4, "")


def test_an_input_that_is_no_list_of_words_is_one_line_and_nothing_is_done(controller: FakeController, tmp_path: Path):
    golden = {
        b"web1\n\x7fELF\x02\x01\n": "line 2 of standard input is not text",
        b"web1\n\xff\xfe\n": "line 2 of standard input is not text",
    }
    controller.add("guests", "web1")
    for content, line in golden.items():
        (tmp_path / "input").write_bytes(content)
        ended = lochness(controller, f"<{tmp_path}/input", "guest", "delete", "-")
        assert ended == (2, f"lochness: {line}\n")
    (tmp_path / "input").write_text('{"metadata": {"name": "ünïcode"}}\n')
    assert lochness(controller, f"<{tmp_path}/input >/dev/null", "network", "create", "-") == (0, "")
    assert len(controller.objects["guests"]) == len(controller.objects["networks"]) == 1


def test_utf_8_is_wanted_where_the_locale_is_strict(controller: FakeController, tmp_path: Path):
    (tmp_path / "input").write_bytes(b"\xff\n")
    strict = {**environment(controller), "PYTHONIOENCODING": "utf-8:strict"}
    with (tmp_path / "input").open("rb") as given:
        done = subprocess.run(
            [*LOCHNESS, "guest", "show", "-"], env=strict, stdin=given, capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (2, "lochness: standard input is not UTF-8 text\n")
    with open("/proc/self/mem", "rb") as given:
        done = subprocess.run(
            [*LOCHNESS, "guest", "show", "-"], env=strict, stdin=given, capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (2, "lochness: cannot read standard input: Input/output error\n")


def test_a_bug_is_one_line_and_its_traceback_is_there_for_who_asks(controller: FakeController):
    program = "import lochness.cli.guest as guest; guest.columns = None; from lochness.cli.main import main; main()"
    command = [sys.executable, "-c", program, "guest", "list"]
    done = subprocess.run(command, env=environment(controller), capture_output=True, text=True, timeout=60)
    assert done.returncode == 70
    assert (
        done.stderr
        == "lochness: this is a bug: TypeError: 'NoneType' object is not callable (LOCHNESS_DEBUG=1 shows where)\n"
    )
    asked = {**environment(controller), "LOCHNESS_DEBUG": "1"}
    done = subprocess.run(command, env=asked, capture_output=True, text=True, timeout=60)
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("answer", "is_done"), [(b"n\n", False), (b"\n", False), (b"yes\n", True)])
def test_apply_asks_who_sits_at_a_terminal(controller: FakeController, tmp_path: Path, answer: bytes, is_done: bool):
    file = tmp_path / "cluster.toml"
    file.write_text("[network.lan]\n")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*LOCHNESS, "apply", "-f", str(file)],
        env={**environment(controller), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=theirs,
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        out, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert out.decode() == "+ network lan\n= 0 as they should be\n"
    done = "lochness: 1 of 1 changes done\n" if is_done else ""
    assert err.decode() == f"1 changes; do them? [y/N] {done}"
    assert bool(controller.objects["networks"]) is is_done


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
