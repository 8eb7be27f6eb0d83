"""`make demo` from its first line to its last, and what it leaves behind however it ends: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lochness.errors import DeadlineError
from lochness_lab.cluster import Cluster
from lochness_lab.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

LIMIT_S = 150
ORDINARY_USER = 65534


class Demo:
    """A demo that runs, its output in files beside its directory."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process

    @property
    def out(self) -> str:
        return self.directory.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        return self.directory.with_suffix(".err").read_text()

    def wait_for(self, text: str) -> None:
        def is_there() -> bool:
            assert self.process.poll() is None or text in self.out, self.out + self.err
            return text in self.out

        wait_until(is_there, limit_s=LIMIT_S, what=f"{text!r} from the demo")


@contextmanager
def demo(directory: Path, *options: str, prefix: Sequence[str] = (), path: str = "") -> Iterator[Demo]:
    command = [*prefix, sys.executable, "-m", "lochness_lab.demo", "--directory", str(directory), *options]
    environment = Cluster.environment({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    with directory.with_suffix(".out").open("wb") as out, directory.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
    try:
        yield Demo(directory, process)
    finally:
        process.kill()
        process.wait(30)


def left_behind(directory: Path) -> list[str]:
    """What of a demo in that directory stays: the directory, processes, mounts, interfaces.

    The kernel takes apart the namespaces of an ended machine a moment after its end; what stays for long is left.
    """
    with suppress(DeadlineError):
        wait_until(lambda: not _found(directory), limit_s=5, what="end of all that was the demo's")
    return _found(directory)


def _found(directory: Path) -> list[str]:
    found = [str(directory)] if directory.exists() else []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                mounts = (process / "mountinfo").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if bytes(directory) in words:
                found.append(f"process {process.name}: {words[:200]!r}")
            if bytes(directory) in mounts:
                found.append(f"mounts of process {process.name}")
    return found + [f"interface {name}" for name in os.listdir("/sys/class/net") if name == Cluster.bridge]


def test_once(directory: Path, guest_image: object):
    with demo(directory, "--once") as shown:
        status = shown.process.wait(LIMIT_S)
        assert status == 0, shown.out + shown.err
    assert "hello ready: GUEST-READY" in shown.out
    assert "10.44.0.10 answers a ping" in shown.out
    assert "demo-hv" in shown.out
    assert "nothing of the guest is left" in shown.out
    assert shown.err.splitlines()[-1].startswith("hello: done in ")
    assert left_behind(directory) == []


@pytest.mark.parametrize("moment", ["libvirtd, for guests", "$ lochness subnet create", "its console:"])
def test_interrupted_half_way_it_leaves_nothing(directory: Path, guest_image: object, moment: str):
    with demo(directory) as shown:
        shown.wait_for(moment)
        for _ in range(3):  # some press it more than once
            shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(30) == 130, shown.out + shown.err
    assert "Traceback" not in shown.err
    assert left_behind(directory) == []


def test_it_waits_lends_a_command_and_leaves_nothing_on_sigterm(directory: Path, guest_image: object):
    with demo(directory) as shown:
        shown.wait_for("Ctrl-C stops and removes everything")
        command = [str(directory / "lochness"), "-o", "id", "guest", "list"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert len(listed.stdout.split()) == 1
        shown.process.send_signal(signal.SIGTERM)
        assert shown.process.wait(30) == 0, shown.out + shown.err
    assert left_behind(directory) == []


def test_a_failing_part_is_named_with_the_end_of_its_log(directory: Path, guest_image: object):
    programs = directory.parent / "bin"
    programs.mkdir()
    broken = programs / "qemu-img"
    broken.write_text("#!/bin/sh\necho no space left on the moon >&2\nexit 3\n")
    broken.chmod(0o755)
    with demo(directory, "--once", path=str(programs)) as shown:
        assert shown.process.wait(LIMIT_S) == 1, shown.out + shown.err
    lines = shown.err.splitlines()
    assert "hello: create failed: qemu-img could not make" in shown.err
    assert "no space left on the moon" in shown.err
    assert "demo: lochness guest create ended with status 1" in lines
    assert any(line.startswith("  the end of ") for line in lines)
    assert "Traceback" not in shown.err
    assert left_behind(directory) == []


def test_an_ordinary_user_gets_the_test_driver(directory: Path):
    directory.mkdir()
    os.chown(directory, ORDINARY_USER, ORDINARY_USER)
    for parent in directory.parents[:3]:
        parent.chmod(0o755)
    # It may read this checkout wherever that lies, and has no other privilege.
    user = ["setpriv", f"--reuid={ORDINARY_USER}", f"--regid={ORDINARY_USER}", "--clear-groups"]
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    with demo(directory, "--once", prefix=[*user, *reading]) as shown:
        assert shown.process.wait(LIMIT_S) == 0, shown.out + shown.err
    assert "on libvirt's test driver, whose guests exist only on paper: no console, no ping" in shown.out
    assert "nothing of the guest is left" in shown.out
    left = left_behind(directory)
    assert left in ([], [str(directory)])
    if left:
        assert list(directory.iterdir()) == []  # its parent is not that user's to change


def test_a_directory_that_holds_something_is_left_alone(directory: Path):
    directory.mkdir()
    (directory / "thesis.txt").write_text("two years of work")
    with demo(directory, "--once") as shown:
        assert shown.process.wait(30) == 1
    assert shown.err == f"demo: {directory} is not empty, and the demo removes what is in its directory\n"
    assert (directory / "thesis.txt").read_text() == "two years of work"
