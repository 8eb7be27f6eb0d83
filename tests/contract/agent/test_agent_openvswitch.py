"""VLANs of a real guest on a bridge of Open vSwitch, its datapath in user space: the kernel need not know of it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lochness_lab.etcd import EtcdServer
from lochness_lab.guest_image import GuestImage
from lochness_lab.libvirtd import Libvirtd
from lochness_lab.machine import Machine
from lochness_lab.processes import Process
from lochness_lab.waiting import wait_until
from tests.contract.agent.agent_process import AgentProcess, leased_agent
from tests.contract.agent.test_agent_qemu import BOOT_LIMIT_S, GATEWAY, answers_ping, fetched, request_for

SWITCH, TAG = "ovs0", 7
TAGGED, OTHER = "10.91.7.30", "10.91.7.31"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


@pytest.fixture
def switched(tmp_path: Path) -> Iterator[Machine]:
    """A machine with an Open vSwitch of its own, whose port `SWITCH` is the gateway in VLAN `TAG`."""
    assert shutil.which("ovs-vsctl"), "Open vSwitch is missing: make test-openvswitch installs it"
    run = tmp_path / "ovs"
    run.mkdir()
    before = os.environ.get("OVS_RUNDIR")
    os.environ["OVS_RUNDIR"] = str(run)  # where libvirtd's and the agent's ovs-vsctl look, which we start
    with Machine(tmp_path / "machine", "switched") as machine:
        database, daemons = run / "conf.db", []
        machine.run(["ovsdb-tool", "create", str(database), SCHEMA])
        for argv in (
            ["ovsdb-server", str(database), f"--remote=punix:{run}/db.sock", "--no-chdir"],
            ["ovs-vswitchd", f"unix:{run}/db.sock", "--disable-system", "--no-chdir"],
        ):
            daemons.append(machine.start(argv, log=run / f"{argv[0]}.log", name=argv[0]))
            wait_until((run / "db.sock").exists, limit_s=20, what="database of Open vSwitch")
        machine.run(
            ["ovs-vsctl", "--timeout=20", "add-br", SWITCH, "--", "set", "bridge", SWITCH, "datapath_type=netdev"]
        )
        machine.run(["ovs-vsctl", "--timeout=20", "set", "port", SWITCH, f"tag={TAG}"])
        machine.run(["ip", "address", "add", f"{GATEWAY}/24", "dev", SWITCH])
        machine.run(["ip", "link", "set", SWITCH, "up"])
        yield machine
        for daemon in reversed(daemons):
            end(daemon)
    if before is None:
        del os.environ["OVS_RUNDIR"]
    else:
        os.environ["OVS_RUNDIR"] = before


def end(daemon: Process) -> None:
    daemon.signal(signal.SIGTERM)
    daemon.wait(20)


@pytest.mark.openvswitch
@pytest.mark.timeout(300)
def test_a_guest_is_in_the_vlan_of_its_group_and_in_no_other(
    switched: Machine, etcd_server: EtcdServer, guest_image: GuestImage, tmp_path: Path
) -> None:
    with (
        Libvirtd(switched) as libvirtd,
        leased_agent(
            tmp_path,
            etcd_server.url,
            libvirt=libvirtd.uri_outside,
            image_source_dirs=[str(guest_image.directory)],
            domain_type="qemu",
        ) as agent,
    ):
        image = fetched(agent, guest_image, "kernel")
        guests = []
        for address, tag in ((TAGGED, TAG), (OTHER, TAG + 1)):
            guest = request_for(agent, image, address)
            guest["nics"][0] |= {"network": SWITCH, "vlans": [tag]}
            agent.done(agent.post("/guests", guest))
            guests.append(guest["id"])
        wait_until(lambda: answers_ping(switched, TAGGED), limit_s=BOOT_LIMIT_S, what="answer of the guest in the VLAN")
        wait_until(lambda: is_up(agent, guests[1]), limit_s=BOOT_LIMIT_S, what="guest in the other VLAN")
        assert not answers_ping(switched, OTHER)
        tags = switched.run(["ovs-vsctl", "--timeout=20", "--bare", "--columns=tag", "list", "port"]).stdout.split()
        assert sorted(tags) == [str(TAG), str(TAG), str(TAG + 1)]
        for id in guests:
            agent.done(agent.post(f"/guests/{id}/delete"))
        ports = switched.run(["ovs-vsctl", "--timeout=20", "list-ports", SWITCH]).stdout.split()
        assert ports == []


def is_up(agent: AgentProcess, id: str) -> bool:
    return "GUEST-READY" in (agent.guest_dir / id / "console.log").read_text()
