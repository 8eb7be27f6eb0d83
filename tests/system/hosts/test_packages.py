"""The Debian packages on a host that boots: installed, upgraded, removed and purged, while a guest runs on.

The host has nothing of Loch Ness at first: Debian, what the packages depend on, and a file that an operator wrote.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lochness_lab.guest_image import default_cache
from lochness_lab.hosts import roots
from lochness_lab.hosts.host import Host
from lochness_lab.hosts.laboratory import IMAGES, UNITS, Laboratory
from lochness_lab.hosts.plan import NETWORK, HostPlan, files, plan
from lochness_lab.waiting import wait_until
from tests.system.hosts.world import alive, answers, measured, qemu_pids

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

DIST = Path(__file__).parents[3] / "dist"
LIMIT_S = 120
NODE = ("lochness-common", "lochness-client", "lochness-node")
CONTROLLER = ("lochness-common", "lochness-controller")


@pytest.fixture
def bare(lab: Laboratory, tmp_path: Path) -> Iterator[Host]:
    """A host without Loch Ness, known to the cluster as the hypervisor h9, with the packages in /root."""
    item = HostPlan("h9", str(NETWORK[60]), is_hypervisor=True, has_etcd=False)
    plans = (*plan(3), item)
    root = roots.debian_root(default_cache(), tell=print)
    host = Host(item, plans, lab.room, root, lab.images)
    host.remove()  # what an interrupted run left in a standing laboratory
    host.furnish()
    # The operator's files come with the operator, after the packages.
    (host.files / "etc/lochness/node.toml").unlink()
    (host.files / "etc/lochness").rmdir()
    for path in DIST.glob("*.deb"):
        shutil.copy(path, host.files / "root")
    host.start()
    host.wait_until_up()
    yield host
    host.remove()
    for guest in lab.records("guest", "list"):  # after a failure
        if guest.get("hypervisor") == host.plan.hypervisor_id:
            lab.records("guest", "delete", guest["id"], "--force", "--wait")
    lab.cli("hv", "delete", "h9")


def dpkg(host: Host, *words: str, is_checked: bool = True) -> str:
    done = host.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *words, limit_s=LIMIT_S, is_checked=is_checked)
    return done.stdout + done.stderr


def install(host: Host, names: tuple[str, ...]) -> str:
    found = []
    for name in names:
        paths = sorted((host.files / "root").glob(f"{name}_*.deb"))
        found += [path for path in paths if "later" not in path.name]
    return dpkg(host, "--force-unsafe-io", "--install", *(f"/root/{path.name}" for path in found))


def later_version(host: Host, names: tuple[str, ...], tmp_path: Path) -> None:
    """The same packages, one version on, with a comment more in the sample configuration."""
    for name in names:
        (package,) = DIST.glob(f"{name}_*.deb")
        tree = tmp_path / name
        subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True, timeout=60)
        control = tree / "DEBIAN/control"
        text = control.read_text()
        (old,) = [line.split()[1] for line in text.splitlines() if line.startswith("Version:")]
        control.write_text(text.replace(old, f"{old}+later"))
        for sample in (tree / "etc/lochness").glob("*.toml"):
            sample.write_text(sample.read_text() + "# A line of the later version.\n")
        target = host.files / "root" / f"{name}_later.deb"
        subprocess.run(["dpkg-deb", "-Znone", "--build", str(tree), str(target)], check=True, timeout=60)
        shutil.rmtree(tree)


def active(host: Host) -> list[str]:
    return host.run("systemctl", "is-active", *UNITS, is_checked=False).stdout.split()


def test_a_hypervisors_packages_from_install_to_purge(lab: Laboratory, bare: Host, tmp_path: Path):
    host = bare
    # Installed without a configuration it starts nothing, and says what to do.
    said = install(host, NODE)
    assert "lochness-node is not started" in said
    assert "Set it up in /etc/lochness/node.toml, then: systemctl start lochness.target" in said
    assert set(active(host)) == {"inactive"}
    assert host.run("stat", "-c", "%a %U %G", "/etc/lochness").stdout.split() == ["750", "root", "lochness"]
    assert host.run("lochness", "--version").stdout.strip()
    assert host.run("lochness-node", "--help").stdout

    # Set up as it says.
    configuration = files(host.plan, (*plan(3), host.plan))["/etc/lochness/node.toml"] + "# The operator's own line.\n"
    (host.files / "etc/lochness/node.toml").write_text(configuration)
    host.run("systemctl", "start", "lochness.target")
    wait_until(lambda: set(active(host)) == {"active"}, limit_s=LIMIT_S, what="four active units")
    lab.record("hv", "create", "--id", host.plan.hypervisor_id, "--name", "h9", "--ip", host.plan.address)
    lab.records("hv", "subnets", "h9", "lab-subnet=br0")
    wait_until(lambda: alive(lab, host), limit_s=LIMIT_S, what="heartbeat of h9")

    guest = _guest_on(lab, host)
    answers(lab, guest)
    running = qemu_pids(host)
    assert len(running) == 1
    disks = _listed(host, "/var/lib/lochness/guests")
    assert guest["id"] in disks

    # Upgraded: new code, the operator's file as it was, the guest not touched.
    later_version(host, NODE, tmp_path)
    before = {unit: host.unit(unit, "MainPID")["MainPID"] for unit in UNITS}
    with measured("upgrade of a hypervisor's packages until its daemons are ready again"):
        said = dpkg(
            host, "--force-unsafe-io", "--force-confdef", "--force-confold", "--install",
            *(f"/root/{name}_later.deb" for name in NODE),
        )  # fmt: skip
        wait_until(lambda: _restarted(host, before), limit_s=LIMIT_S, what="four units of the new version")
    assert "+later" in host.run("dpkg-query", "-W", "lochness-node").stdout
    assert (host.files / "etc/lochness/node.toml").read_text() == configuration
    assert qemu_pids(host) == running
    answers(lab, guest)

    # What was stopped by hand stays stopped over an upgrade.
    host.run("systemctl", "stop", "lochness-resources")
    dpkg(host, "--force-unsafe-io", "--force-confold", "--install", *(f"/root/{name}_later.deb" for name in NODE))
    assert host.unit("lochness-resources", "ActiveState")["ActiveState"] == "inactive"

    # Removed: the daemons are gone, the guest and the operator's file are not.
    dpkg(host, "--remove", "lochness-node")
    assert (host.files / "etc/lochness/node.toml").read_text() == configuration
    assert not (host.files / "usr/bin/lochness-node").exists()
    assert qemu_pids(host) == running
    answers(lab, guest)

    # Installed again it goes on at once, with the configuration that was there.
    dpkg(host, "--force-unsafe-io", "--force-confold", "--install", *(f"/root/{name}_later.deb" for name in NODE))
    wait_until(lambda: set(active(host)) == {"active"}, limit_s=LIMIT_S, what="four active units")
    wait_until(lambda: alive(lab, host), limit_s=LIMIT_S, what="heartbeat of h9")
    assert qemu_pids(host) == running

    # Purged: nothing of Loch Ness but the guest, which has all that it needs to start again.
    said = dpkg(host, "--purge", *reversed(NODE))
    assert "/var/lib/lochness/guests is not empty and stays" in said
    assert not (host.files / "usr/lib/lochness").exists()
    assert not list((host.files / "etc/systemd/system").rglob("*lochness*"))
    assert qemu_pids(host) == running
    host.run("virsh", "destroy", guest["id"])
    host.run("virsh", "start", guest["id"])
    answers(lab, guest)
    assert len(qemu_pids(host)) == 1

    # And back once more: the guest is Loch Ness's again, and can be deleted.
    host.run("mkdir", "-p", "/etc/lochness")
    (host.files / "etc/lochness/node.toml").write_text(configuration)
    dpkg(host, "--force-unsafe-io", "--force-confold", "--install", *(f"/root/{name}_later.deb" for name in NODE))
    wait_until(lambda: set(active(host)) == {"active"}, limit_s=LIMIT_S, what="four active units")
    lab.records("guest", "delete", guest["id"], "--wait")
    assert host.domains() == {}
    host.run("umount", IMAGES)  # the laboratory's own
    dpkg(host, "--purge", *reversed(NODE))
    assert _listed(host, "/etc/lochness", "/var/lib/lochness", "/usr/lib/lochness") == ""
    assert host.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_a_controllers_packages_from_install_to_purge(bare: Host, tmp_path: Path):
    host = bare
    host.run("umount", IMAGES)
    host.run("rmdir", "--parents", "--ignore-fail-on-non-empty", IMAGES)
    install(host, CONTROLLER)
    path = host.files / "etc/lochness/controller.toml"
    host.run("systemctl", "stop", "lochness-controller")
    path.write_text('etcd = "http://10.77.0.10:2379"\n')
    host.run("systemctl", "start", "lochness-controller", limit_s=LIMIT_S)
    later_version(host, CONTROLLER, tmp_path)
    before = host.unit("lochness-controller", "MainPID")["MainPID"]
    dpkg(host, "--force-unsafe-io", "--force-confold", "--install", *(f"/root/{name}_later.deb" for name in CONTROLLER))
    wait_until(
        lambda: (
            (seen := host.unit("lochness-controller", "MainPID", "ActiveState"))["ActiveState"] == "active"
            and seen["MainPID"] != before
        ),
        limit_s=LIMIT_S,
        what="controller of the new version",
    )
    assert path.read_text() == 'etcd = "http://10.77.0.10:2379"\n'
    dpkg(host, "--purge", *reversed(CONTROLLER))
    assert _listed(host, "/etc/lochness", "/var/lib/lochness", "/usr/lib/lochness") == ""
    assert host.run("systemctl", "--failed", "--no-legend").stdout == ""


def _guest_on(lab: Laboratory, host: Host) -> dict[str, Any]:
    """A guest that was placed on that host: the others are cordoned meanwhile."""
    for other in lab.hypervisors:
        lab.records("hv", "config", other.name, "cordoned=1")
    try:
        guest = lab.create_guest("lasting")
    finally:
        for other in lab.hypervisors:
            lab.records("hv", "config", other.name, "cordoned=")
    assert guest["hypervisor"] == host.plan.hypervisor_id
    return guest


def _restarted(host: Host, before: dict[str, str]) -> bool:
    seen = {unit: host.unit(unit, "MainPID", "ActiveState") for unit in UNITS}
    return all(seen[unit]["ActiveState"] == "active" and seen[unit]["MainPID"] != before[unit] for unit in UNITS)


def _listed(host: Host, *directories: str) -> str:
    return host.run("find", *directories, is_checked=False).stdout
