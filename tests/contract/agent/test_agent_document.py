"""The agent's OpenAPI document: it says what there is, and whatever fits or nearly fits it is answered."""

from __future__ import annotations

import os
import re
from typing import Any, Final
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from lochness.identity import new_id
from lochness_node.agent.api import ROUTES
from lochness_node.agent.document import openapi_document
from tests.contract.agent.agent_process import AgentProcess

pytestmark = pytest.mark.filterwarnings(  # schemathesis uses random now and then
    "ignore::hypothesis.errors.HypothesisDeprecationWarning"
)

LIMIT_S = 20
#: The same requests each time; `make fuzz` makes up many more.
BOUNDED = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "4")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

document = schemathesis.openapi.from_dict(openapi_document())


def test_the_document_has_every_route_and_no_other(agent: AgentProcess) -> None:
    served = agent.get("/schema/openapi.json").json()
    assert served == openapi_document()
    routes = {
        (re.sub(r":[a-z]+}", "}", path), method.lower())
        for handler in ROUTES
        for path in handler.paths
        for method in handler.http_methods
    }
    described = {(path, method) for path, methods in served["paths"].items() for method in methods}
    assert described == routes


@pytest.fixture(scope="module")
def known(agent: AgentProcess) -> dict[str, str]:
    """Ids of things that are here, to begin with."""
    guest = agent.running_guest()
    job = agent.get(f"/guests/{guest['id']}/jobs").json()[0]
    return {"guest_id": guest["id"], "job_id": job["ID"], "image_id": agent.with_image(), "disk": "vda"}


@document.parametrize()
@BOUNDED
def test_whatever_is_asked_of_strangers_is_answered(case: schemathesis.Case, agent: AgentProcess) -> None:
    ask(case, agent)


@document.parametrize()
@BOUNDED
def test_whatever_is_asked_of_what_is_here_is_answered(
    case: schemathesis.Case, agent: AgentProcess, known: dict[str, str]
) -> None:
    for name in set(known) & set(case.path_parameters or {}):
        case.path_parameters[name] = known[name]
    ask(case, agent)


def ask(case: schemathesis.Case, agent: AgentProcess) -> None:
    """Send it: there is an answer in time, it is no 5xx, and an error says what was wrong."""
    answer = case.call(base_url=agent.url, timeout=LIMIT_S)
    case.validate_response(answer, checks=[not_a_server_error])
    assert answer.status_code in {200, 202, 204, 400, 404, 405, 409, 413}, answer.text
    headers = {name.lower(): values[0] for name, values in answer.headers.items()}
    if headers.get("content-type") == "application/json":
        said = answer.json()
        assert answer.status_code < 400 or {"message", "code", "reason"} <= set(said)
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", headers["x-request-id"])


#: Written into every place where a text goes.
HOSTILE: Final[list[str]] = [
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "file:///etc/shadow",
    "-rf",
    "--help",
    "; reboot",
    "$(reboot)",
    "`reboot`",
    "|reboot",
    "\x00",
    "a\x00b",
    "\r\nX-Evil: 1",
    "\n",
    "'\"><x/>",
    "]]>",
    "<!ENTITY x SYSTEM 'file:///etc/passwd'>",
    "&lt;&amp;",
    "%s%n%x",
    "{0}{id}",
    "${HOME}",
    "\u202e\u0000\ufeff",
    "\U0001f995",
    "A" * 100_000,
    "null",
    "NaN",
    "1e999",
    "-1",
    " ",
    ".",
    "..",
    "~root",
    'json:{"driver":"file","filename":"/etc/shadow"}',
    "nbd:127.0.0.1:1",
    "http://169.254.169.254/latest",
    "/dev/mem",
    "a,file=/etc/shadow",
]
#: And where something else than this kind of value is expected.
ODD: Final[list[Any]] = [None, -1, 2**63, 1.5, True, [], {}, [[]], {"a": {}}]
FIELDS: Final = [
    "id",
    "type",
    "image",
    "memory",
    "cpu",
    "state",
    "metadata",
    "metadata.name",
    "metadata.hostname",
    "metadata.user-data",
    "metadata.ssh-keys",
    "metadata.firmware",
    "nics",
    "nics.0.name",
    "nics.0.network",
    "nics.0.model",
    "nics.0.mac",
    "nics.0.address",
    "nics.0.netmask",
    "nics.0.gateway",
    "nics.0.vlans",
    "disks",
    "disks.0.size",
    "disks.0.image",
    "disks.0.source",
    "disks.0.bus",
    "disks.0.device",
    "disks.0.volume",
]


def put(body: Any, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        body = body[int(name) if name.isdigit() else name]
    body[last] = value


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_guest_leads_out_of_its_place(agent: AgentProcess, field: str) -> None:
    """Refused, or taken as the text it is: the job then ends by not being bound here, before anything is made."""
    for value in [*HOSTILE, *ODD]:
        guest = agent.guest(new_id())
        put(guest, field, value)
        answer = agent.post("/guests", guest)
        assert answer.status_code in (202, 400), (value, answer.text)
        if answer.status_code == 400:
            assert answer.json()["reason"] == "invalid"
    assert agent.get("/healthz").status_code == 200
    assert all(len(path.name) == 36 for path in agent.guest_dir.iterdir())


@pytest.mark.parametrize(
    "field", ["id", "type", "source", "sha256", "size", "format", "kernel", "kernel_sha256", "initrd", "cmdline"]
)
def test_no_field_of_an_image_leads_out_of_its_place(agent: AgentProcess, field: str) -> None:
    for value in [*HOSTILE, *ODD]:
        image = {"id": new_id(), "source": agent.source("i", b"x"), field: value}
        if field == "initrd":
            image["kernel"] = image["source"]
        if value == "http://169.254.169.254/latest":
            continue  # a web server like any other: who may ask for images may name one
        answer = agent.post("/images", image)
        assert answer.status_code in (202, 400), (value, answer.text)
        if answer.status_code == 202 and field in ("source", "kernel", "initrd") and value:
            agent.refused(answer)
    names = {path.name.partition(".")[0] for path in agent.image_dir.iterdir()}
    assert all(re.fullmatch(r"[0-9a-f-]{36}", name) for name in names)


@pytest.mark.parametrize("value", HOSTILE[:-1])
def test_no_path_leads_out_of_its_place(agent: AgentProcess, value: str) -> None:
    guest, text = new_id(), quote(value[:2000], safe="").replace(".", "%2E")
    for method, path in (
        ("GET", f"/guests/{text}"), ("POST", f"/guests/{text}/delete"), ("POST", f"/guests/{guest}/{text}"),
        ("GET", f"/jobs/{text}"), ("GET", f"/images/{text}"), ("DELETE", f"/images/{text}"),
        ("GET", f"/guests/{guest}/snapshots/{text}/download"), ("GET", f"/guests/{guest}/disks/{text}/snapshots"),
        ("GET", f"/jobs?limit={text}"), ("GET", f"/jobs/{guest}?wait_s={text}"),
    ):  # fmt: skip
        answer = agent.http.request(method, agent.url + path)
        assert answer.status_code < 500, (method, path, answer.text)
        assert answer.status_code >= 400 or path.startswith("/jobs?limit=") or answer.status_code == 405


def test_fifty_guests_at_once_are_all_made_right(agent: AgentProcess) -> None:
    image = agent.with_image()
    guests = [agent.guest(image, metadata={"name": f"guest-{number}"}) for number in range(50)]
    for guest in guests:
        agent.bind(guest["id"])
    answers = [agent.post("/guests", guest) for guest in guests]
    assert len({answer.headers["X-Guest-Job-ID"] for answer in answers}) == 50
    for answer in answers:
        agent.done(answer)
    shown = {guest["id"]: guest for guest in agent.get("/guests").json()}
    for guest in guests:
        assert shown[guest["id"]]["state"] == "running"
        assert shown[guest["id"]]["metadata"] == guest["metadata"]
        assert {path.name for path in (agent.guest_dir / guest["id"]).iterdir()} == {
            "guest.json", "vda.qcow2", "seed.iso",
        }  # fmt: skip
    for answer in [agent.post(f"/guests/{guest['id']}/delete") for guest in guests]:
        agent.done(answer)
    assert not {guest["id"] for guest in agent.get("/guests").json()} & {guest["id"] for guest in guests}
