"""A machine is separate from the real one, and when it ends, nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lochness.errors import DeadlineError, UnavailableError
from lochness_lab.machine import Machine, pids_in_namespace
from lochness_lab.processes import process_state
from lochness_lab.waiting import wait_until

# It leaves its session and its parent, as qemu does.
DAEMONIZED = "setsid sh -c 'sleep 600 & exec sleep 600' >/dev/null 2>&1 &"


def namespaces(pid):
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "pid", "net", "uts", "ipc")}


def members(name, identity):
    """The processes that hold a namespace alive; the dead that nobody has reaped yet hold nothing."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns" / name) == identity and process_state(int(entry.name)) != "Z":
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or not root's to see: none of ours
    return found


def test_it_has_its_own_name_network_and_pids(own_machine):
    assert own_machine.run(["uname", "-n"]).stdout == "own\n"
    assert own_machine.run(["sh", "-c", "echo /sys/class/net/*"]).stdout.split() == ["/sys/class/net/lo"]
    assert own_machine.run(["cat", "/proc/1/comm"]).stdout == "sh\n"
    mine, its = namespaces("self"), namespaces(own_machine.pid)
    assert not set(mine.values()) & set(its.values())


@pytest.mark.parametrize("cidr", ["10.9.0.1/24", "fd00:9::1/64"])
def test_a_bridge_has_its_address_inside_only(own_machine, cidr):
    own_machine.bridge("br-test", cidr)
    shown = json.loads(own_machine.run(["ip", "-j", "address", "show", "br-test"]).stdout)
    assert cidr in [f"{each['local']}/{each['prefixlen']}" for each in shown[0]["addr_info"]]
    assert own_machine.run(["ping", "-c", "1", "-W", "1", cidr.partition("/")[0]]).returncode == 0
    assert not Path("/sys/class/net/br-test").exists()


def test_a_bound_directory_is_seen_inside_only(own_machine, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    own_machine.bind(tmp_path / "source", target)
    (tmp_path / "source" / "file").write_text("loch")
    assert own_machine.run(["cat", target / "file"]).stdout == "loch"
    assert not (target / "file").exists()


def test_signals_reach_the_process_itself(own_machine):
    script = "trap 'echo told; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    process = own_machine.start(["sh", "-c", script], name="listener")
    process.wait_until(lambda: "up" in process.log_tail(), limit_s=5, what="'up' in the log")
    process.freeze()
    assert process_state(process.pid) == "T"
    process.thaw()
    assert process.stop() == 7
    assert "told" in process.log_tail()


def test_a_failed_or_slow_command_is_an_error(own_machine):
    with pytest.raises(UnavailableError, match="status 3: no such loch"):
        own_machine.run(["sh", "-c", "echo no such loch >&2; exit 3"])
    with pytest.raises(DeadlineError, match=r"over 0\.2 s"):
        own_machine.run(["sleep", "600"], timeout_s=0.2)


def test_its_pid_1_reaps_orphans_at_once(own_machine):
    own_machine.run(["sh", "-c", "sh -c 'sleep 0.1' & exit 0"])
    shown = "for s in /proc/[0-9]*/stat; do cat $s; done 2>/dev/null"
    wait_until(
        lambda: " Z " not in (states := own_machine.run(["sh", "-c", shown]).stdout) and "sleep 0.1" not in states,
        limit_s=2,
        what="machine without a zombie",
    )


def test_power_off_ends_everything(tmp_path):
    machine = Machine(tmp_path / "machine", "own")
    machine.power_on()
    machine.run(["sh", "-c", DAEMONIZED])
    child = machine.start(["sleep", "600"])
    held = namespaces(machine.pid)
    assert len(machine.pids()) > 3
    machine.power_off()
    assert not child.is_running
    assert [pid for name, identity in held.items() for pid in members(name, identity)] == []
    with pytest.raises(UnavailableError, match="own is off"):
        machine.run(["true"])
    machine.power_on()
    assert machine.run(["uname", "-n"]).stdout == "own\n"
    machine.power_off()


def test_nothing_is_left_when_its_maker_is_killed(tmp_path):
    maker = f"""
import json, pathlib, signal
from lochness_lab.machine import Machine
directory = pathlib.Path({str(tmp_path)!r})
machine = Machine(directory / "machine", "doomed")
machine.power_on()
machine.bridge("br0", "10.9.0.1/24")
machine.bind(directory / "source", directory / "machine")
machine.run(["sh", "-c", {DAEMONIZED!r}])
machine.start(["sleep", "600"], log=directory / "sleep.log")
print(machine.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", maker], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        held = namespaces(int(parent.stdout.readline()))
        assert len(pids_in_namespace(held["pid"])) > 3
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(
        lambda: not [pid for name, identity in held.items() for pid in members(name, identity)],
        limit_s=60,
        what="end of the machine's namespaces",
    )
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("delay_ms", [0, 2, 4, 6, 8, 10, 15, 20, 30, 60])
def test_nothing_is_left_when_its_maker_is_killed_too_early(tmp_path, delay_ms):
    """However far it had come: no pid 1 that sits there without a maker."""
    mark = f"lochness-early-{os.getpid()}-{delay_ms}"
    maker = f"""
import os, pathlib, signal
from lochness_lab.machine import Machine
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
signal.setitimer(signal.ITIMER_REAL, {delay_ms} / 1000 or 0.0001)
Machine(pathlib.Path({str(tmp_path)!r}), {mark!r}).power_on()
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", maker]) as parent:
        assert parent.wait(20) == -signal.SIGKILL
    # The maker's own command line has the mark too, and is gone now.
    wait_until(lambda: not commands_with(mark), limit_s=10, what=f"end of what was started for {mark}")


def commands_with(word):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
