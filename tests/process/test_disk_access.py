"""What an agent that is not root may still do with a disk that was given to QEMU's user."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

from lochness_node.agent.guests.access import keep_access

AGENT, QEMU, STRANGER = 61001, 61002, 61003
OPENS = "import os, sys; os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1])); open(sys.argv[2], 'r+b').read()"


def opens(user_id: int, path: Path) -> bool:
    argv = ["/usr/bin/env", "python3", "-c", OPENS, str(user_id), str(path)]
    return subprocess.run(argv, capture_output=True, timeout=30, env={"PATH": os.defpath}).returncode == 0


def test_a_disk_given_away_is_still_the_agents_and_nobody_elses() -> None:
    with tempfile.TemporaryDirectory(prefix="lochness-access-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o711)
        disk = Path(directory, "vda.qcow2")
        disk.write_bytes(b"disk")
        disk.chmod(0o600)
        os.chown(disk, AGENT, AGENT)
        assert not opens(QEMU, disk)
        assert keep_access(disk, AGENT)
        os.chown(disk, QEMU, QEMU)  # as libvirt does when the guest starts
        assert opens(AGENT, disk)
        assert opens(QEMU, disk)
        assert not opens(STRANGER, disk)
        assert stat.S_IMODE(disk.stat().st_mode) & stat.S_IRWXO == 0


def test_where_it_cannot_be_said_the_answer_is_no(tmp_path: Path) -> None:
    assert not keep_access(tmp_path / "nothing", AGENT)
