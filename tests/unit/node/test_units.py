"""The systemd units, judged by systemd's own tools."""

from __future__ import annotations

import configparser
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
#: systemd-analyze takes tenths: 15 is an exposure of 1.5.
EXPOSURE_MAX = {
    "lochness-heartbeat": 15,
    "lochness-resources": 15,
    "lochness-guestwatch": 30,
    "lochness-agent": 30,
    "lochness-controller": 15,
}
NODE_COMMANDS = {"lochness-heartbeat", "lochness-resources", "lochness-guestwatch", "lochness-agent"}


def parsed(service: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)  # a key may repeat
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have case
    parser.read(UNITS / service)
    return parser["Service"]


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name)
    assert program, f"{name} is not installed (Debian package systemd)"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30)


def test_there_is_a_unit_for_each_daemon():
    assert {name.removesuffix(".service") for name in SERVICES} == NODE_COMMANDS | {"lochness-controller"}


def test_systemd_finds_nothing_to_say(tmp_path):
    # verify wants the commands to exist, and warns with status 0: any word is a failure.
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.target")):
        text = unit.read_text().replace("/usr/bin/lochness-", f"{tmp_path}/lochness-")
        (tmp_path / unit.name).write_text(text)
    for command in ("lochness-node", "lochness-controller"):
        (tmp_path / command).symlink_to("/bin/true")
    done = tool("systemd-analyze", "verify", "--man=no", *sorted(tmp_path.glob("lochness*.*")))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_waits_restarts_and_gives_up_as_the_daemon_expects(service):
    unit = parsed(service)
    command = service.removesuffix(".service")
    expected = "/usr/bin/" + command.replace("lochness-", "lochness-node ", 1) if command in NODE_COMMANDS else ""
    assert unit["ExecStart"] == (expected or f"/usr/bin/{command}")
    assert (unit["Type"], unit["Restart"], unit["RestartPreventExitStatus"]) == ("notify", "always", "78")
    assert unit["TimeoutStartSec"] == "infinity"
    assert int(unit["WatchdogSec"]) >= 60
    assert "HUP" in unit["ExecReload"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_unit_is_exposed_more_than_it_needs(service):
    threshold = f"--threshold={EXPOSURE_MAX[service.removesuffix('.service')]}"
    done = tool("systemd-analyze", "security", "--offline=yes", threshold, "--no-pager", UNITS / service)
    assert done.returncode == 0, done.stdout


def test_a_user_reaches_libvirt_and_the_guests_only_where_needed():
    who = {
        service.removeprefix("lochness-").removesuffix(".service"): (
            parsed(service)["User"], parsed(service).get("SupplementaryGroups", ""),
        )
        for service in SERVICES
    }  # fmt: skip
    assert who == {
        "agent": ("lochness", "libvirt kvm"),
        "guestwatch": ("lochness", "libvirt"),
        "resources": ("lochness-resources", ""),
        "heartbeat": ("lochness-heartbeat", ""),
        "controller": ("lochness-controller", ""),
    }


def test_users_and_directories_can_be_made(tmp_path):
    (tmp_path / "etc").mkdir()
    users = tool("systemd-sysusers", f"--root={tmp_path}", UNITS / "lochness.sysusers")
    assert users.returncode == 0, users.stderr
    passwd = (tmp_path / "etc" / "passwd").read_text()
    assert {parsed(service)["User"] for service in SERVICES} <= {line.split(":")[0] for line in passwd.splitlines()}
    members = {
        name: who
        for name, _, _, who in (line.split(":") for line in (tmp_path / "etc" / "group").read_text().splitlines())
    }
    assert members["libvirt"] == members["kvm"] == "lochness"
    assert set(members["lochness"].split(",")) == {"lochness-heartbeat", "lochness-resources", "lochness-controller"}
    made = tool("systemd-tmpfiles", "--create", f"--root={tmp_path}", UNITS / "lochness.tmpfiles")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "var/lib/lochness/guests", tmp_path / "run/lochness", tmp_path / "etc/lochness")
    }
    assert modes == {"var/lib/lochness/guests": 0o751, "run/lochness": 0o755, "etc/lochness": 0o750}
