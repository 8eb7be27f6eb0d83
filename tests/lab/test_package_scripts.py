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
PATH=$1 script=$2 before=$3
shift 3
for words; do sh "$script.preinst" $words; done
sh "$script.postinst" configure $before
"""


def configured(tmp_path: Path, package: str, before: str, *unpacked: str) -> list[str]:
    """What systemctl is asked when dpkg unpacks the package, told these words, and configures it after that version."""
    told = tmp_path / "told"
    for program in ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper", f"lochness-{package}"):
        (tmp_path / program).write_text(f'#!/bin/sh\necho "{program} $*" >>{told}\n')
        (tmp_path / program).chmod(0o755)
    for program in ("sh", "rm"):
        os.symlink(shutil.which(program) or program, tmp_path / program)
    for kind in ("preinst", "postinst"):
        argv = [str(SCRIPTS / "script"), f"lochness-{package}", kind]
        text = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
        (tmp_path / f"script.{kind}").write_text(text)
    own = ["unshare", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]
    argv = [*own, "sh", "-ec", _CONFIGURE, "configure", str(tmp_path), str(tmp_path / "script"), before, *unpacked]
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
    return [line for line in told.read_text().splitlines() if line.startswith("systemctl ")]


@pytest.mark.parametrize("package", ["node", "controller"])
@pytest.mark.parametrize(
    ("unpacked", "before", "action"),
    [
        (["install"], "", "start"),
        (["upgrade 0.1.0"], "0.1.0", "try-restart"),
        # Removed and not purged: dpkg names the version whose configuration is still there, as at an upgrade.
        (["install 0.1.0"], "0.1.0", "start"),
        # dpkg --configure, of what was unpacked before a boot.
        ([], "0.1.0", "try-restart"),
        # An installation that did not come to its end, and then an upgrade.
        (["install 0.1.0", "upgrade 0.1.0"], "0.1.0", "try-restart"),
    ],
)
def test_what_is_started_when_a_package_is_configured(
    tmp_path: Path, package: str, unpacked: list[str], before: str, action: str
):
    asked = configured(tmp_path, package, before, *unpacked)
    begun = [line for line in asked if " start " in line or " try-restart " in line]
    assert begun, asked
    # The daemons are ready when etcd answers, and etcd may be what the same apt configures next: none is waited for.
    assert all(line.startswith(f"systemctl --quiet --system --no-block {action} ") for line in begun)
