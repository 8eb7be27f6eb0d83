"""What the packages' scripts leave behind, in a mount namespace of its own with an empty /var/lib."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "packaging/deb"
SCRIPT = SCRIPTS / "lochness-node.postrm"
_PURGE = """
mount -t tmpfs tmpfs /var/lib
mkdir -p /var/lib/lochness/guests /var/lib/lochness/images /var/lib/lochness/cache /var/lib/lochness/agent
touch /var/lib/lochness/cache/base.qcow2 /var/lib/lochness/agent/jobs
[ -z "$2" ] || touch "/var/lib/lochness/guests/$2"
PATH=$3 sh "$1" purge
cd /var/lib && find . -mindepth 1 | LC_ALL=C sort
"""


def purged(tmp_path: Path, guest: str) -> list[str]:
    """The files below /var/lib after the purge, and what it said."""
    for program in ("rm", "rmdir", "sh"):  # and no deb-systemd-helper
        os.symlink(shutil.which(program) or program, tmp_path / program)
    own = ["unshare", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]
    argv = [*own, "sh", "-ec", _PURGE, "purge", str(SCRIPT), guest, str(tmp_path)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.splitlines()


def test_a_purge_takes_everything_when_no_guest_is_left(tmp_path: Path):
    assert purged(tmp_path, "") == []


def test_a_purge_leaves_guests_with_the_images_below_their_disks(tmp_path: Path):
    assert purged(tmp_path, "disk.qcow2") == [
        "lochness-node: /var/lib/lochness/guests is not empty and stays",
        "./lochness",
        "./lochness/cache",
        "./lochness/cache/base.qcow2",
        "./lochness/guests",
        "./lochness/guests/disk.qcow2",
    ]


_CONFIGURE = """
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
[ ! -e /usr/sbin/policy-rc.d ] || mount --bind /bin/true /usr/sbin/policy-rc.d  # some machines forbid all starts
PATH=$1 sh "$2" configure $3
"""


@pytest.mark.parametrize("package", ["node", "controller"])
@pytest.mark.parametrize(("before", "action"), [("", "start"), ("0.1.0", "try-restart")])
def test_an_installation_waits_for_no_daemon(tmp_path: Path, package: str, before: str, action: str):
    # The daemons are ready when etcd answers, and etcd may be what the same apt configures next.
    told = tmp_path / "told"
    for program in ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper", f"lochness-{package}"):
        (tmp_path / program).write_text(f'#!/bin/sh\necho "{program} $*" >>{told}\n')
        (tmp_path / program).chmod(0o755)
    os.symlink(shutil.which("sh") or "sh", tmp_path / "sh")
    own = ["unshare", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]
    script = SCRIPTS / f"lochness-{package}.postinst"
    argv = [*own, "sh", "-ec", _CONFIGURE, "configure", str(tmp_path), str(script), before]
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
    asked = [line for line in told.read_text().splitlines() if f" {action} " in line]
    assert asked, told.read_text()
    assert all(line.startswith("systemctl --quiet --system --no-block ") for line in asked)
