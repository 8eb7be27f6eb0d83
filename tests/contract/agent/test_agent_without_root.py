"""An agent that is not root, on QEMU: what a guest's console and disks belong to is not in its way."""

from __future__ import annotations

import os
import pwd
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import lochness
import lochness_node
from lochness_lab.etcd import EtcdServer
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import AgentProcess
from tests.contract.agent.boot_sector import boot_sector

#: libvirt asks for the name of whoever comes.
USER_ID = pwd.getpwnam("nobody").pw_uid
SAID = "started from the disk"
#: Code and Python may lie where only root gets to; in a mount namespace they are shown where anybody does.
SHOWN = {
    "lochness": Path(lochness.__file__).parent,
    "lochness_node": Path(lochness_node.__file__).parent,
    "libraries": Path(sysconfig.get_path("purelib")),
    "python": Path(sys.base_prefix),
}
PYTHON = Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
BECOME = f"""
set -e
cd "$1"
for part in {" ".join(SHOWN)}; do shift; mount --bind "$1" "$part"; done
shift
exec setpriv --reuid {USER_ID} --regid {USER_ID} --clear-groups --pdeathsig KILL \\
    env HOME=. PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD/libraries" LD_LIBRARY_PATH="$PWD/python/lib" \\
    "python/{PYTHON}" -m lochness_node.main "$@"
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user gets to, its path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ln-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def agent(public: Path, etcd_server: EtcdServer) -> Iterator[AgentProcess]:
    assert Libvirtd.available() is None
    code = public / "code"
    for part in SHOWN:
        (code / part).mkdir(parents=True)
    with Machine(public / "m", "unprivileged") as machine, Libvirtd(machine) as libvirtd:
        libvirtd.socket.chmod(0o666)  # as for members of the group libvirt
        agent = AgentProcess(
            public / "agent", etcd_server.url, libvirt=libvirtd.uri_outside, domain_type="qemu", shutdown_timeout_s=1
        )
        agent.program = ["unshare", "--mount", "sh", "-c", BECOME, "agent", code, *SHOWN.values()]
        agent.directory.mkdir()
        os.chown(agent.directory, USER_ID, USER_ID)
        try:
            agent.start()
            agent.hold_lease()
            yield agent
        finally:
            agent.close()


@pytest.mark.timeout(240)
def test_a_guests_life_by_an_agent_that_is_not_root(agent: AgentProcess) -> None:
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    assert f"Uid:\t{USER_ID}\t{USER_ID}\t{USER_ID}\t{USER_ID}" in status
    guest = agent.guest(agent.with_image(beginning=boot_sector(SAID)), nics=[])
    path, directory = f"/guests/{guest['id']}", agent.guest_dir / guest["id"]
    agent.bind(guest["id"])
    agent.done(agent.post("/guests", guest))
    assert directory.stat().st_uid == USER_ID

    # The console is root's alone; libvirt reads it to us.
    wait_until(lambda: SAID in agent.get(f"{path}/console").text, limit_s=60, what="line on the console")
    console = (directory / "console.log").stat()
    assert (console.st_uid, stat.S_IMODE(console.st_mode)) == (0, 0o600)
    answer = agent.get(f"{path}/console")
    assert int(answer.headers["X-Console-End"]) == console.st_size
    assert agent.get(f"{path}/console", since=str(console.st_size)).text == ""
    assert agent.get(f"{path}/console", limit_bytes="9").text == answer.text[-9:]

    for action in ("suspend", "resume", "restart", "shutdown", "start"):
        agent.done(agent.post(f"{path}/{action}"))
    agent.done(agent.post(f"{path}/snapshots", {"name": "s"}))
    assert agent.get(f"{path}/snapshots/s/download").content[:4] == b"QFI\xfb"
    agent.done(agent.post(f"{path}/snapshots/s/rollback"))
    agent.done(agent.post(f"{path}/delete"))
    assert list(agent.guest_dir.iterdir()) == []
