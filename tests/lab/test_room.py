"""The room of a laboratory of hosts leaves nothing, however the process that opened it ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness_lab.hosts.room import Room
from lochness_lab.waiting import wait_until

LIMIT_S = 60
_OPENS = """
import signal, sys
from pathlib import Path
from lochness_lab.hosts.room import Room

Room(Path(sys.argv[1])).open(ends_with_us=True)
print("open", flush=True)
signal.pause()
"""


def groups(room: Room) -> list[Path]:
    """The cgroups of a host h1 in that room, in each of this machine's trees that systemd uses."""
    trees = (Path("/sys/fs/cgroup") / name for name in ("systemd", "unified", "."))
    return [tree / room.group / "h1" for tree in trees if (tree / "cgroup.procs").exists()]


@pytest.fixture
def opener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Room]]:
    """A process that has opened a room and is to end it."""
    room = Room(tmp_path_factory.mktemp("room"))
    argv = [sys.executable, "-c", _OPENS, str(room.directory)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process, room
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            room.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_starter_that_is_killed_leaves_neither_room_nor_cgroup(opener, how):
    process, room = opener
    inside = room.pid
    for group in groups(room):  # as a host that boots does
        group.mkdir(parents=True)
    assert groups(room)
    process.send_signal(how)
    wait_until(lambda: not Path(f"/proc/{inside}").exists(), limit_s=LIMIT_S, what="end of the room")
    wait_until(
        lambda: not any(group.parent.exists() for group in groups(room)), limit_s=LIMIT_S, what="end of its cgroups"
    )
    assert not room.is_open
