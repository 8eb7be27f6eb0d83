"""explain, capacity, events and top: what they make of the controller's answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from lochness.cli.events import told
from lochness.cli.fwrules import parsed_rule, rule_text
from lochness.cli.top import alive_text, span_text, view
from lochness.sse import ServerSentEvent, parsed
from tests.unit.cli.conftest import Lochness
from tests.unit.cli.fake_controller import FakeController, answering, http

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
REFUSED = {
    "guest": "g", "is_placed": False, "hypervisor": "", "ip": "", "bridge": "", "reason": "no_candidate",
    "message": "no_candidate: 2 hypervisors: 2 insufficient_memory (wanted 4096, had at most 3072)",
    "functions": [
        {"function": "candidate_is_alive", "considered": 2, "removed": 0},
        {"function": "candidate_has_resources", "considered": 2, "removed": 2, "reasons": {"insufficient_memory": 2}},
    ],
    "hypervisors": [
        {
            "hypervisor": "h1", "name": "rack1-a", "free_memory": 3072, "free_disk": 1 << 20, "free_cpu": 4,
            "guests": 7,
            "function": "candidate_has_resources", "reason": "insufficient_memory",
            "text": "insufficient_memory: wanted 4096 MB, had 3072 MB",
        },
    ],
}  # fmt: skip


def test_explain_says_why_not(lochness: Lochness, controller: FakeController):
    controller.add("guests", "web1")
    controller.answers["POST /placement"] = REFUSED
    ended = lochness("--server", controller.url, "explain", "web1")
    assert (ended.status, ended.err) == (1, "")
    assert ended.out.splitlines() == [
        "web1 would find no place: no_candidate: 2 hypervisors: 2 insufficient_memory (wanted 4096, had at most 3072)",
        "  candidate_is_alive: 0 of 2 removed",
        "  candidate_has_resources: 2 of 2 removed (2 insufficient_memory)",
        "",
        "RANK  HYPERVISOR  MEMORY  DISK  CPU  GUESTS  WHY NOT",
        "   -  rack1-a       3.0G  1.0T    4       7  insufficient_memory: wanted 4096 MB, had 3072 MB",
    ]
    assert json.loads(lochness("--server", controller.url, "explain", "web1", "-j").out) == REFUSED


def test_explain_says_where(lochness: Lochness, controller: FakeController):
    controller.add("guests", "web1")
    controller.answers["POST /placement"] = {
        "is_placed": True, "hypervisor": "h1", "ip": "10.0.0.5", "bridge": "br0", "functions": [],
        "hypervisors": [{"hypervisor": "h1", "name": "rack1-a", "rank": 1}, {"hypervisor": "h2", "reason": "removed"}],
    }  # fmt: skip
    ended = lochness("--server", controller.url, "explain", "web1")
    assert ended.status == 0
    assert ended.out.startswith("web1 would go to rack1-a, with 10.0.0.5 on br0\n")
    assert lochness("--server", controller.url, "explain", "web1", "-o", "id").out == "h1\n"


def test_capacity_of_all_flavors_and_of_one(lochness: Lochness, controller: FakeController):
    small = controller.add("flavors", "small")
    entry = {
        "flavor": small, "guests": 12, "limited_by": "memory", "free_addresses": 90,
        "refused": {"heartbeat_missing": 1},
    }  # fmt: skip
    controller.answers["GET /capacity"] = [entry]
    out = lochness("--server", controller.url, "capacity").out
    assert out.splitlines() == [
        "FLAVOR  GUESTS  LIMITED BY  ADDRESSES  REFUSED",
        "small       12  memory             90  1 heartbeat_missing",
    ]
    assert lochness("--server", controller.url, "capacity", "-o", "id").out == f"{small}\n"
    rooms = [{"hypervisor": "h1", "name": "rack1-a", "guests": 12, "limited_by": "memory"}]
    controller.answers["GET /capacity"] = {**entry, "hypervisors": rooms}
    out = lochness("--server", controller.url, "capacity", "--flavor", "small").out
    assert out.splitlines() == [
        "12 more fit; memory runs out first; no room on: 1 heartbeat_missing",
        "",
        "HYPERVISOR  GUESTS  LIMITED BY",
        "rack1-a         12  memory",
    ]


def test_events_are_parsed_as_the_standard_says():
    lines = [
        "retry: 2000",
        "id: 7",
        "event: ready",
        'data: {"revision":7}',
        "",
        ": a comment",
        "data:a",
        "data: b",
        "",
        "",
    ]
    assert list(parsed(lines)) == [
        ServerSentEvent("ready", '{"revision":7}', "7"), ServerSentEvent("message", "a\nb", "7"),
    ]  # fmt: skip
    assert list(parsed(["data: cut off"])) == []


def test_a_stream_that_is_none_is_one_line(lochness: Lochness):
    with answering(http(b"<html>")) as url:
        ended = lochness("--server", url, "events", "--follow")
    line = f"{url} answered GET /events not with a stream of events but with '<html>': is that a Loch Ness controller?"
    assert (ended.status, ended.err) == (6, f"lochness: {line}\n")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"kind": "guest", "part": "status", "value": {"state": "crashed", "reason": "oom"}},
            "guest web1 status crashed oom",
        ),
        ({"kind": "guest", "part": "power", "value": {"desired": "stopped"}}, "guest web1 power stopped"),
        ({"kind": "guest", "part": "status", "action": "gone", "value": None}, "guest web1 status gone"),
        (
            {"kind": "job", "part": "", "value": {"request": "create", "action": "fetch", "status": "working"}},
            "job web1 create fetch working",
        ),
        (
            {"kind": "network", "part": "metadata", "value": {"id": "x", "metadata": {"a": "b"}}},
            "network web1 metadata id=x metadata={a=b}",
        ),
        ({"kind": "config", "part": "a", "value": "b" * 200}, f"config web1 a {'b' * 100}..."),
    ],
)
def test_an_event_is_one_line(event: dict, line: str):
    assert told(event, "web1") == line


def test_top_shows_hosts_guests_and_jobs():
    hosts = [
        {"id": "h2", "metadata": {}, "alive": False, "lost_since": "2030-01-01T11:59:00Z", "ip": "10.0.0.12"},
        {
            "id": "h1", "metadata": {"name": "rack1-a"}, "alive": True, "ip": "10.0.0.11",
            "total_resources": {"memory": 8192, "disk": 2048, "cpu": 4},
            "available_resources": {"memory": 4096, "disk": 1024, "cpu": 3},
        },
    ]  # fmt: skip
    guests = [
        {"hypervisor": "h1", "power": "running", "status": {"state": "running"}},
        {"hypervisor": "h1", "power": "running", "status": {"state": "crashed"}},
    ]
    jobs = [{"status": "working"}, {"status": "done"}]
    assert view(hosts, guests, jobs, now=NOW) == [
        "hypervisors: 2, 1 alive",
        "guests: 2 (1 crashed, 1 running)",
        "jobs: 1 unfinished (1 working)",
        "",
        "NAME     ALIVE            MEMORY       DISK  CPU  GUESTS  NOT AS WANTED  ADDRESS",
        "rack1-a  yes           4.0G/8.0G  1.0G/2.0G  1/4       2              1  10.0.0.11",
        "h2       no, for 60 s      0M/0M      0M/0M  0/0       0              -  10.0.0.12",
    ]


def test_spans():
    assert [span_text(span_s) for span_s in (-1, 5, 119, 120, 7200, 172_800)] == [
        "0 s",
        "5 s",
        "119 s",
        "2 min",
        "2 h",
        "2 d",
    ]
    assert alive_text({"lost_since": "yesterday"}, NOW) == "no"


def test_rules_are_read_as_they_are_written():
    for text in ("allow tcp 80-443", "deny any", "allow tcp 22 from 10.0.0.0/8", "allow udp 53 from web"):
        rule = parsed_rule(text, lambda word: f"id of {word}")
        assert rule_text(rule, {"id of web": "web"}) == text
