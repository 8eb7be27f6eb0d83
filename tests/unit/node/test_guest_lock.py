"""The lock that agent and guestwatch share, between threads and between processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lochness.errors import DeadlineError, UnavailableError
from lochness_node.guest_lock import guest_lock

HOLDER = """
import sys
from pathlib import Path
from lochness_node.guest_lock import guest_lock
with guest_lock(Path(sys.argv[1]), "guest", timeout_s=5):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_told_so_at_once(tmp_path):
    with guest_lock(tmp_path, "guest", timeout_s=0):
        started_s = time.monotonic()
        error = pytest.raises(DeadlineError, match="guest guest is still being worked on")
        with error, guest_lock(tmp_path, "guest", timeout_s=0):
            pytest.fail("two hold the lock")
        assert time.monotonic() - started_s < 0.5


def test_guests_do_not_share_a_lock(tmp_path):
    with guest_lock(tmp_path, "one", timeout_s=0), guest_lock(tmp_path, "two", timeout_s=0):
        assert {path.name for path in tmp_path.iterdir()} == {"one.lock", "two.lock"}


def test_the_wait_has_a_limit(tmp_path):
    with guest_lock(tmp_path, "guest", timeout_s=0):
        started_s = time.monotonic()
        with pytest.raises(DeadlineError, match=r"after 0\.2 s"), guest_lock(tmp_path, "guest", timeout_s=0.2):
            pytest.fail("two hold the lock")
        assert 0.2 <= time.monotonic() - started_s < 1.5


def test_it_is_got_as_soon_as_it_is_free(tmp_path):
    released = threading.Event()
    with guest_lock(tmp_path, "guest", timeout_s=0):
        got: list[bool] = []

        def wait() -> None:
            with guest_lock(tmp_path, "guest", timeout_s=10):
                got.append(released.is_set())

        waiting = threading.Thread(target=wait)
        waiting.start()
        released.set()
    waiting.join(10)
    assert got == [True]


def test_no_file_is_left_and_the_directory_is_made(tmp_path):
    directory = tmp_path / "run" / "lochness"
    with guest_lock(directory, "guest", timeout_s=0):
        pass
    assert list(directory.iterdir()) == []


def test_an_error_in_the_block_lets_go(tmp_path):
    with pytest.raises(KeyError), guest_lock(tmp_path, "guest", timeout_s=0):
        raise KeyError
    with guest_lock(tmp_path, "guest", timeout_s=0):
        pass


def test_many_threads_never_hold_it_together(tmp_path):
    inside = 0
    seen: list[int] = []

    def work() -> None:
        nonlocal inside
        for _ in range(40):
            with guest_lock(tmp_path, "guest", timeout_s=20):
                inside += 1
                seen.append(inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [1] * 240
    assert list(tmp_path.iterdir()) == []


def test_who_opened_the_file_of_the_one_before_does_not_hold_the_lock(tmp_path):
    # The holder removes the file and lets go; who had opened it just before could lock it beside the next one's.
    deadline_s = time.monotonic() + 3
    inside = 0
    most = 0

    def hammer() -> None:
        nonlocal inside, most
        while time.monotonic() < deadline_s and most < 2:
            with suppress(DeadlineError), guest_lock(tmp_path, "guest", timeout_s=0):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1


def test_another_process_is_kept_out_and_a_killed_one_lets_go(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DeadlineError), guest_lock(tmp_path, "guest", timeout_s=0):
            pytest.fail("two hold the lock")
        holder.kill()
        holder.wait(10)
        assert (tmp_path / "guest.lock").exists()
        with guest_lock(tmp_path, "guest", timeout_s=0):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_said_with_its_path(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UnavailableError, match="file/locks"), guest_lock(file / "locks", "guest", timeout_s=0):
        pass
