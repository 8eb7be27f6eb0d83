"""The commands against a controller: what they ask for, what they print."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

from tests.unit.cli.conftest import Lochness
from tests.unit.cli.fake_controller import JOB_ID, FakeController, answering, http


def lines_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def add_cluster(controller: FakeController) -> dict[str, str]:
    resources = {
        "total_resources": {"memory": 8192, "disk": 2097152, "cpu": 4},
        "available_resources": {"memory": 7680, "disk": 2096128, "cpu": 3},
    }
    hv = controller.add("hypervisors", "rack1-a", ip="10.0.0.11", alive=True, **resources)
    dead = controller.add("hypervisors", alive=False)
    flavor = controller.add("flavors", "small", memory=512, disk=1024, cpu=1, image="?")
    network = controller.add("networks", "lan")
    guest = controller.add(
        "guests", "web1", hypervisor=hv, flavor=flavor, network=network, ip="10.0.0.5", status={"state": "running"}
    )
    return {"hv": hv, "dead": dead, "flavor": flavor, "network": network, "guest": guest}


def test_hv_list_is_a_table(lochness: Lochness, controller: FakeController):
    ids = add_cluster(controller)
    ended = lochness("--server", controller.url, "hv", "list")
    assert (ended.status, ended.err) == (0, "")
    assert lines_of(ended.out) == [
        ["NAME", "ID", "ALIVE", "MEMORY", "DISK", "CPU", "GUESTS", "ADDRESS"],
        ["rack1-a", ids["hv"], "yes", "512M/8.0G", "1.0G/2.0T", "1/4", "1", "10.0.0.11"],
        ["-", ids["dead"], "no", "0M/0M", "0M/0M", "0/0", "0", "-"],
    ]
    assert "\x1b" not in ended.out


def test_guest_list_names_what_it_can(lochness: Lochness, controller: FakeController):
    ids = add_cluster(controller)
    # What its hypervisor saw of it before its creation was undone is not what it is.
    other = controller.add("guests", hypervisor="", flavor="gone", ip="", status={"state": "missing"})
    ended = lochness("--server", controller.url, "guest", "list")
    assert lines_of(ended.out)[1:] == [
        ["web1", ids["guest"], "running", "rack1-a", "10.0.0.5", "small"],
        ["-", other, "unplaced", "-", "-", "gone"],
    ]
    only = lochness("--server", controller.url, "-o", "id", "guest", "list", "--hypervisor", "rack1-a")
    assert only.out.split() == [ids["guest"]]


def test_json_and_id_may_stand_in_front_or_behind(lochness: Lochness, controller: FakeController):
    add_cluster(controller)
    for words in (["-j", "guest", "list"], ["guest", "list", "-j"], ["-o", "id", "guest", "list", "--json"]):
        ended = lochness("--server", controller.url, *words)
        assert [json.loads(line)["metadata"] for line in ended.out.splitlines()] == [{"name": "web1"}]
    for words in (["-o", "id", "guest", "list"], ["guest", "list", "-o", "id"]):
        ended = lochness("--server", controller.url, *words)
        assert ended.out.split() == list(controller.objects["guests"])


def test_ids_come_from_standard_input(lochness: Lochness, controller: FakeController):
    for name in ("a", "b"):
        controller.add("networks", name)
    before, sys.stdin = sys.stdin, io.StringIO("a\nb\n")
    try:
        ended = lochness("--server", controller.url, "network", "delete", "-")
    finally:
        sys.stdin = before
    assert ended.status == 0
    assert controller.objects["networks"] == {}


def test_hv_life(lochness: Lochness, controller: FakeController):
    def hv(*words: str) -> str:
        ended = lochness("--server", controller.url, "hv", *words)
        assert (ended.status, ended.err) == (0, "")
        return ended.out

    id = hv("create", "--name", "a", "--ip", "10.0.0.1", "-m", "rack=1", "-o", "id").strip()
    assert controller.objects["hypervisors"][id] == {"id": id, "metadata": {"name": "a", "rack": "1"}, "ip": "10.0.0.1"}
    hv("modify", "a", "--name", "b", "-m", "rack=", "-m", "row=2", "--gateway", "10.0.0.254")
    assert controller.objects["hypervisors"][id]["metadata"] == {"name": "b", "row": "2"}
    assert controller.objects["hypervisors"][id]["gateway"] == "10.0.0.254"
    assert lines_of(hv("config", "b", "agentUrl=http://127.0.0.1:8080", "x=1"))[1:] == [
        ["agentUrl", "http://127.0.0.1:8080"], ["x", "1"],
    ]  # fmt: skip
    assert json.loads(hv("config", "b", "x=", "-j")) == {"agentUrl": "http://127.0.0.1:8080"}
    subnet = controller.add("subnets", "lan-a")
    assert lines_of(hv("subnets", "b", "lan-a=br0"))[1:] == [[subnet, "br0"]]
    assert lines_of(hv("subnets", "b"))[1:] == [[subnet, "br0"]]
    assert lines_of(hv("subnets", "b", "--remove", "lan-a"))[1:] == []
    assert hv("guests", "b") == ""
    hv("delete", "b")
    assert controller.objects["hypervisors"] == {}


def test_network_life(lochness: Lochness, controller: FakeController):
    def run(*words: str) -> str:
        ended = lochness("--server", controller.url, *words, "-o", "id")
        assert (ended.status, ended.err) == (0, "")
        return ended.out.strip()

    run("network", "create", "--name", "lan")
    given = ["--cidr", "10.0.0.0/24", "--start", "10.0.0.5", "--end", "10.0.0.9", "--gateway", "10.0.0.1"]
    subnet = run("subnet", "create", "--name", "lan-a", *given)
    stored = controller.objects["subnets"][subnet]
    assert (stored["cidr"], stored["start"], stored["end"], stored["gateway"]) == tuple(given[1::2])
    assert run("network", "add-subnet", "lan", "lan-a") == subnet
    assert subnet in lochness("--server", controller.url, "network", "show", "lan").out
    assert run("network", "remove-subnet", "lan", "lan-a") == ""
    image = run(
        "image", "create", "--name", "tiny", "--source", "file:///x", "--kernel", "file:///k", "--cmdline", "a b"
    )
    assert controller.objects["images"][image] == {
        "id": image, "metadata": {"name": "tiny"}, "source": "file:///x", "kernel": "file:///k", "cmdline": "a b",
    }  # fmt: skip
    flavor = run("flavor", "create", "--name", "small", "--image", "tiny", "--memory", "96")
    assert controller.objects["flavors"][flavor] == {
        "id": flavor, "metadata": {"name": "small"}, "image": image, "memory": 96, "disk": 0, "cpu": 1,
    }  # fmt: skip
    for noun, name in (("flavor", "small"), ("image", "tiny"), ("subnet", "lan-a"), ("network", "lan")):
        assert name in lochness("--server", controller.url, noun, "list").out
        run(noun, "delete", name)
    assert not any(controller.objects.values())


def test_a_create_that_does_not_wait_prints_the_job(lochness: Lochness, controller: FakeController):
    ids = add_cluster(controller)
    words = ["guest", "create", "--name", "web2", "--flavor", "small", "--network", "lan", "-j"]
    ended = lochness("--server", controller.url, *words)
    guest = json.loads(ended.out)
    assert (ended.status, ended.err, guest["job"]) == (0, "", JOB_ID)
    assert (guest["flavor"], guest["network"]) == (ids["flavor"], ids["network"])


def test_a_guest_is_created_with_keys_and_user_data_from_files(
    lochness: Lochness, controller: FakeController, tmp_path: Path
):
    add_cluster(controller)
    (tmp_path / "a.pub").write_text("# mine\nssh-ed25519 AAAA me\n\n")
    (tmp_path / "b.pub").write_text("ssh-rsa BBBB you\n")
    (tmp_path / "init.yaml").write_text("#cloud-config\npackages: [vim]\n")
    files = ("--ssh-key", f"{tmp_path}/a.pub", "--ssh-key", f"{tmp_path}/b.pub", "--user-data", f"{tmp_path}/init.yaml")
    words = ("guest", "create", "--name", "web2", "--flavor", "small", "--network", "lan", *files, "-m", "a=b", "-j")
    ended = lochness("--server", controller.url, *words)
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out)["metadata"] == {
        "name": "web2",
        "a": "b",
        "ssh-keys": "ssh-ed25519 AAAA me\nssh-rsa BBBB you",
        "user-data": "#cloud-config\npackages: [vim]\n",
    }


def test_files_that_make_no_guest(lochness: Lochness, controller: FakeController, tmp_path: Path):
    add_cluster(controller)
    for name, content in {
        "id": b"-----BEGIN OPENSSH PRIVATE KEY-----\nMY\n",
        "none": b"# no\n\n",
        "raw": b"\xff",
    }.items():
        (tmp_path / name).write_bytes(content)
    golden = {
        ("--ssh-key", "id"): f"{tmp_path}/id is a private key; the public one is mostly in {tmp_path}/id.pub",
        ("--ssh-key", "none"): f"there is no public key in {tmp_path}/none; ssh-keygen makes one",
        ("--ssh-key", "gone"): f"cannot read {tmp_path}/gone: No such file or directory",
        ("--ssh-key", "raw"): f"{tmp_path}/raw is not UTF-8 text",
        ("--user-data", "raw"): f"{tmp_path}/raw is not UTF-8 text",
        ("--user-data", "empty"): f"there is no user data in {tmp_path}/empty",
    }
    (tmp_path / "empty").write_text("\n")
    for (option, name), line in golden.items():
        words = ("guest", "create", "--flavor", "small", "--network", "lan", option, str(tmp_path / name))
        ended = lochness("--server", controller.url, *words)
        assert (ended.status, ended.err, ended.out) == (2, f"lochness: {line}\n", "")
    assert len(controller.objects["guests"]) == 1


def test_waiting_shows_each_step_and_then_the_guest(lochness: Lochness, controller: FakeController):
    add_cluster(controller)
    controller.job_states = [
        {"status": "new", "action": "select-hypervisor"},
        {"status": "working", "action": "fetch"},
        {"status": "working", "action": "fetch", "progress": "40 %"},
        {"status": "working", "action": "create", "progress": "\x1b[2J"},
        {"status": "done", "action": "create"},
    ]
    words = ["guest", "create", "--name", "web2", "--flavor", "small", "--network", "lan", "--wait", "-o", "id"]
    ended = lochness("--server", controller.url, *words)
    assert ended.status == 0
    assert ended.out.strip() == list(controller.objects["guests"])[-1]
    told = ended.err.splitlines()
    assert told[:5] == [
        "web2: select-hypervisor queued", "web2: fetch", "web2: fetch 40 %", r"web2: create \x1b[2J", "web2: create",
    ]  # fmt: skip
    assert told[5].startswith("web2: done in ")


def test_steps_that_were_over_at_the_first_look_are_told_all_the_same(lochness: Lochness, controller: FakeController):
    steps = [
        {"action": "select-hypervisor", "message": "placed on hypervisor x"},
        {"action": "fetch", "message": "the image is there"},
        {"action": "create", "message": ""},
    ]
    controller.job_states = [
        {"status": "working", "action": "create", "steps": steps, "progress": "starting"},
        {"status": "done", "action": "create", "steps": steps},
    ]
    ended = lochness("--server", controller.url, "job", "wait", JOB_ID)
    assert ended.status == 0
    assert [line.partition(": ")[2] for line in ended.err.splitlines()[:-1]] == [
        "select-hypervisor: placed on hypervisor x",
        "fetch: the image is there",
        "create: starting",
        "create",
    ]


def test_a_job_that_fails_is_one_line_and_status_1(lochness: Lochness, controller: FakeController):
    add_cluster(controller)
    reason = "no_candidate: 3 hypervisors: 3 insufficient_memory (wanted 4096, had at most 3072)"
    controller.job_states = [{"status": "error", "action": "select-hypervisor", "error": reason}]
    words = ["guest", "create", "--flavor", "small", "--network", "lan", "--wait"]
    ended = lochness("--server", controller.url, *words)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.splitlines()[-1] == f"lochness: guest: select-hypervisor failed: {reason} (job {JOB_ID})"
    waited = lochness("--server", controller.url, "job", "wait", JOB_ID)
    assert waited.status == 1
    assert reason in waited.err


def test_every_action_and_delete_reach_the_guest(lochness: Lochness, controller: FakeController):
    ids = add_cluster(controller)
    for action in ("shutdown", "reboot", "restart", "poweroff", "start", "suspend", "resume"):
        ended = lochness("--server", controller.url, "guest", action, "web1", "--wait", "-o", "id")
        assert (ended.status, ended.out.strip()) == (0, ids["guest"])
    ended = lochness("--server", controller.url, "guest", "delete", "web1", "--wait", "-o", "id")
    assert (ended.status, ended.out.strip()) == (0, ids["guest"])
    assert controller.objects["guests"] == {}


def test_waiting_has_a_limit(lochness: Lochness, controller: FakeController):
    controller.job_states = [{"status": "working", "action": "fetch"}]
    started_s = time.monotonic()
    ended = lochness("--server", controller.url, "job", "wait", JOB_ID, "--timeout", "0.3")
    assert ended.status == 7
    assert ended.err.splitlines()[-1] == f"lochness: job {JOB_ID} has not finished within 0.3 s"
    assert 0.3 <= time.monotonic() - started_s < 5


def test_jobs_are_listed_with_how_long_they_took(lochness: Lochness, controller: FakeController):
    add_cluster(controller)
    guest = next(iter(controller.objects["guests"]))
    id = controller.add(
        "jobs", guest=guest, request="create", action="fetch", status="error", error="no space",
        started_at="2030-01-01T00:00:00.250000Z", finished_at="2030-01-01T00:00:01.500000Z",
    )  # fmt: skip
    ended = lochness("--server", controller.url, "job", "list", "--guest", "web1")
    assert lines_of(ended.out)[1] == [id, "create", "fetch", "web1", "error", "1.2s", "no", "space"]


def test_twenty_thousand_guests_are_listed_whole(lochness: Lochness, controller: FakeController):
    """How quickly is for bench/cli_speed.py to say."""
    for number in range(20_000):
        controller.add("guests", f"guest-{number}", ip="10.0.0.1", status={"state": "running"})
    ended = lochness("--server", controller.url, "guest", "list")
    assert ended.out.count("\n") == 20_001


def test_a_token_is_told_once_and_revoked_by_its_name(lochness: Lochness, controller: FakeController):
    made = lochness("--server", controller.url, "token", "create", "--name", "ci", "--role", "operate", "--ttl", "2h")
    assert (made.status, made.out) == (0, "sesame\n")
    assert next(iter(controller.objects["tokens"].values())) | {"id": ""} == {
        "id": "", "name": "ci", "role": "operate", "ttl_s": 7200,
    }  # fmt: skip
    id = next(iter(controller.objects["tokens"]))
    assert made.err == f"lochness: the token of ci, id {id}; it is not told again:\n"
    assert lochness("--server", controller.url, "token", "delete", "ci").status == 0
    assert controller.objects["tokens"] == {}


def test_specs_come_as_arguments_and_from_standard_input(lochness: Lochness, controller: FakeController):
    ids = add_cluster(controller)
    before, sys.stdin = (
        sys.stdin,
        io.StringIO('{"metadata":{"name":"a b"}}\n\n{"flavor":"small","metadata":{"x":"y"}}\n'),
    )
    try:
        words = ("guest", "create", "-", "--flavor", ids["flavor"], "--network", "lan", "-m", "owner=ops", "-j")
        ended = lochness("--server", controller.url, *words)
    finally:
        sys.stdin = before
    assert (ended.status, ended.err) == (0, "")
    made = [json.loads(line) for line in ended.out.splitlines()]
    assert [guest["metadata"] for guest in made] == [{"owner": "ops", "name": "a b"}, {"owner": "ops", "x": "y"}]
    assert {guest["flavor"] for guest in made} == {ids["flavor"]}
    changed = lochness(
        "--server", controller.url, "network", "modify", json.dumps({"id": "lan", "metadata": {"name": "b"}})
    )
    assert (changed.status, changed.err) == (0, "")
    assert controller.objects["networks"][ids["network"]]["metadata"] == {"name": "b"}


def test_vlans_and_their_groups(lochness: Lochness, controller: FakeController):
    def run(*words: str) -> str:
        ended = lochness("--server", controller.url, *words, "-o", "id")
        assert (ended.status, ended.err) == (0, "")
        return ended.out.strip()

    assert run("vlan", "create", "--tag", "100", "--description", "office") == "100"
    group = run("vlangroup", "create", "--name", "floor1")
    assert run("vlangroup", "tags", "floor1", "--set", "office") == "100"
    assert run("vlangroup", "tags", "floor1") == "100"
    assert run("vlan", "groups", "office", "--set", "floor1") == group
    run("vlan", "modify", "100", "--description", "lab")
    assert controller.objects["vlans/tags"]["100"]["description"] == "lab"
    run("vlan", "delete", "lab")
    run("vlangroup", "delete", "floor1")
    assert not any(controller.objects.values())


def test_cordons_and_their_end(lochness: Lochness, controller: FakeController):
    hv = controller.add("hypervisors", "rack1-a")
    assert lochness("--server", controller.url, "hv", "cordon", "rack1-a", "--reason", "memory").out == f"{hv}\n"
    assert controller.parts[f"{hv}/config"] == {"cordoned": "memory"}
    assert lochness("--server", controller.url, "hv", "uncordon", "rack1-a").status == 0
    assert controller.parts[f"{hv}/config"] == {}


def test_a_console_is_printed_as_it_is_in_a_pipe(lochness: Lochness):
    text = b"login: \xff\x1b[2J\r\n"
    with answering(http(text, "200 OK\r\nX-Console-End: 8")) as url:
        ended = lochness("--server", url, "guest", "console", JOB_ID)
    assert (ended.status, ended.out, ended.err) == (0, text.decode(errors="replace"), "")
