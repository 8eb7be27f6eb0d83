"""The example in the --help of each command, run as it stands there, in an order in which they make sense.

On a real etcd, controller and node with libvirt's test driver. What this machine cannot have is replaced, word by word:
addresses of other machines, ids, files, sizes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from lochness.cli.app import app
from lochness.cli.main import main
from lochness_lab.cluster_kinds import DriverCluster
from lochness_lab.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

#: Everything in order, each once: what is made stays until the end. "..." waits for the hypervisor.
ORDER = """
completion; context set; context list; context use; context show; context delete
hv create; hv list; hv show; hv config
network create; network list; network show; network modify
subnet create; subnet list; subnet show; subnet modify; subnet addresses; network add-subnet; hv subnets
image create; image list; image show; image modify; flavor create; flavor list; flavor show; flavor modify
fwgroup create; fwgroup list; fwgroup show; fwgroup modify
vlangroup create; vlangroup list; vlangroup show; vlangroup modify
vlan create; vlan list; vlan show; vlan modify; vlan groups; vlangroup tags
token create; token list; token delete; config set; config list; config show; config delete; apply
...; explain; capacity; guest create; guest list; guest show; guest wait; guest address; guest console; guest modify
hv guests; guest suspend; guest resume; guest reboot; guest restart; guest shutdown; guest start; guest poweroff
job list; job show; job wait; job cancel; events; top; hv cordon; hv uncordon; backup; restore; guest delete; fsck
flavor delete; image delete; network remove-subnet; subnet delete; network delete
fwgroup delete; vlangroup delete; vlan delete; hv modify; hv delete
"""

#: What ends otherwise than well, and how: the job has ended already.
STATUS = {"job cancel": 5}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DriverCluster]:
    before = dict(os.environ)
    with DriverCluster(tmp_path / "c") as cluster:
        for name in [name for name in os.environ if name.startswith("LOCHNESS_")]:
            del os.environ[name]
        os.environ |= {
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "LOCHNESS_SERVER": cluster.server,
            "LOCHNESS_ETCD": cluster.etcd.url,
        }
        yield cluster
    os.environ.clear()
    os.environ.update(before)


def every_command() -> Iterator[str]:
    root: Any = typer.main.get_command(app)
    for noun in root.commands:
        verbs = getattr(root.commands[noun], "commands", None)
        yield from [noun] if verbs is None else [f"{noun} {verb}" for verb in verbs]


def example_of(name: str) -> list[str]:
    root: Any = typer.main.get_command(app)
    command = root
    for word in name.split():
        command = command.commands[word]
    found = re.search(r"^Example: lochness (.*)$", command.help, re.MULTILINE)
    assert found is not None, name
    return shlex.split(found[1])


Run = Callable[..., str]


def test_every_example_works(cluster: DriverCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            main(words)
        said = capsys.readouterr()
        assert end.value.code == status, (words, said)
        assert "Traceback" not in said.err
        return said.out

    replaced = replacements(cluster, tmp_path)
    done = []
    for name in re.split(r"[;\s]*[;\n]\s*", ORDER.strip()):
        if name == "...":
            wait_until(lambda: is_able(run), limit_s=60, what="hypervisor that is alive and has resources")
            continue
        if name == "job show":
            newest = json.loads(run("job", "list", "-j").splitlines()[0])
            replaced["5bd60bb1-2a5e-4b9c-8e36-1cdbb4a5c1de"] = newest["id"]
        words = [replaced.get(word, word) for word in example_of(name)]
        run(*words, status=STATUS.get(name, 0))
        done.append(name)
    assert sorted(done) == sorted(every_command())
    assert run("guest", "list", "-j") == run("network", "list", "-j") == run("hv", "list", "-j") == ""


def is_able(run: Run) -> bool:
    hypervisor = json.loads(run("hv", "show", "rack1-a", "-j"))
    return bool(hypervisor["alive"] and hypervisor["available_resources"]["memory"])


def replacements(cluster: DriverCluster, directory: Path) -> dict[str, str]:
    image = cluster.source_dir / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True, timeout=30)
    (directory / "token").write_text("sesame\n")
    (directory / "cluster.toml").write_text("[network.lan]\n[network.dmz]\n[flavor.small]\nmemory = 128\n")
    return {
        "e88a75a6-7ae6-487c-9634-6553d3793437": cluster.hypervisor_id,
        "agentUrl=http://10.0.0.11:8080": f"agentUrl={cluster.agent_url}",
        "lan-a=br0": f"lan-a={cluster.bridge}",
        "https://images.example/debian12.qcow2": image.as_uri(),
        "https://mirror.example/debian12.qcow2": image.as_uri(),
        "1024": "64",
        "2048": "96",
        "10240": "16",
        "@/run/keys/lochness": f"@{directory}/token",
        "cluster.toml": f"{directory}/cluster.toml",
        "repairs.json": f"{directory}/repairs.json",
        "/var/backups/lochness.jsonl": f"{directory}/backup.jsonl",
    }
