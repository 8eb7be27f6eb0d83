"""What does the agent's OpenAPI document say? Every route, what it takes and what it answers. Pure.

Handlers take bodies as bytes and answer records as JSON, so the framework sees none of it: this table says it, and a
test compares it with the routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from lochness_node.agent.guests.console import CONSOLE_BYTES, CONSOLE_BYTES_MAX
from lochness_node.agent.wire import ACTIONS, AgentJob, Guest, Image, ImageRequest

WAIT_MAX_S: Final = 60.0
JOBS_DEFAULT: Final = 100
JOBS_MAX: Final = 1000

Schema = dict[str, Any]


class Problem(msgspec.Struct, kw_only=True):
    """An error: `code` is the status, `reason` a stable word, `field` what was wrong in the request, if anything."""

    message: str
    code: int
    reason: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class _Operation:
    """One method of one path. `status` is that of success; 202 names the job in X-Guest-Job-ID."""

    method: str
    path: str
    summary: str
    answer: Schema
    body: Schema | None = None
    status: int = 200
    query: tuple[Schema, ...] = ()
    media_type: str = "application/json"


_TEXT: Final[Schema] = {"type": "string"}
_ID: Final[Schema] = {"type": "string", "format": "uuid"}
_METADATA: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}
_COUNTERS: Final[Schema] = {"type": "object"}
_SNAPSHOT: Final[Schema] = {
    "type": "object",
    "required": ["name", "disks", "created_at"],
    "properties": {"name": _TEXT, "disks": {"type": "array", "items": _TEXT}, "created_at": _TEXT},
}
_PARAMETERS: Final[dict[str, Schema]] = {
    "guest_id": _ID,
    "job_id": _ID,
    "image_id": _ID,
    "action": {"type": "string", "enum": list(ACTIONS)},
    "disk": {"type": "string", "pattern": "^vd[a-x]$"},
    "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"},
}
_LIMIT: Final[Schema] = {
    "name": "limit",
    "in": "query",
    "description": f"how many, newest first; more than {JOBS_MAX} are never answered",
    "schema": {"type": "integer", "minimum": 1, "default": JOBS_DEFAULT},
}
_SINCE: Final[Schema] = {
    "name": "since",
    "in": "query",
    "description": "from this place on, in bytes, as X-Console-End named it; without it: the end",
    "schema": {"type": "integer", "minimum": 0},
}
_LIMIT_BYTES: Final[Schema] = {
    "name": "limit_bytes",
    "in": "query",
    "description": "how much",
    "schema": {"type": "integer", "minimum": 1, "maximum": CONSOLE_BYTES_MAX, "default": CONSOLE_BYTES},
}
_WAIT: Final[Schema] = {
    "name": "wait_s",
    "in": "query",
    "description": f"answer when the job has ended, or after so many seconds, {WAIT_MAX_S:g} at most",
    "schema": {"type": "number", "minimum": 0, "default": 0},
}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_GUEST, _JOB, _IMAGE = _ref("Guest"), _ref("AgentJob"), _ref("Image")
_PATCH: Final[Schema] = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
_NAMED: Final[Schema] = {"type": "object", "properties": {"name": _PARAMETERS["name"]}}
_G: Final = "/guests/{guest_id}"


def _snapshots(of: str, what: str) -> Iterable[_Operation]:
    each = f"{of}/{{name}}"
    yield _Operation("get", of, f"The snapshots of {what}", _list(_SNAPSHOT))
    yield _Operation("post", of, f"Take a snapshot of {what}", _GUEST, _NAMED, 202)
    yield _Operation("get", each, f"A snapshot of {what}", _SNAPSHOT)
    yield _Operation("delete", each, f"Delete a snapshot of {what}", _GUEST, status=202)
    yield _Operation("post", f"{each}/rollback", f"Bring {what} back to a snapshot", _GUEST, status=202)
    media_type = "application/octet-stream"
    yield _Operation("get", f"{each}/download", f"A snapshot of {what} as qcow2", _TEXT, media_type=media_type)


OPERATIONS: Final = (
    _Operation("get", "/healthz", "Is the agent ready?", {"type": "object"}),
    _Operation("get", "/schema/openapi.json", "This document", {"type": "object"}),
    _Operation("get", "/guests", "The guests that are here", _list(_GUEST)),
    _Operation("post", "/guests", "Create a guest", _GUEST, _GUEST, 202),
    _Operation("get", _G, "A guest", _GUEST),
    _Operation("post", f"{_G}/{{action}}", "Do something to a guest", _GUEST, status=202),
    _Operation("get", f"{_G}/jobs", "A guest's jobs", _list(_JOB), query=(_LIMIT,)),
    _Operation("get", f"{_G}/jobs/{{job_id}}", "A guest's job", _JOB, query=(_WAIT,)),
    _Operation("get", "/jobs", "All jobs", _list(_JOB), query=(_LIMIT,)),
    _Operation("get", "/jobs/{job_id}", "A job", _JOB, query=(_WAIT,)),
    _Operation("get", "/images", "The images that are here or on their way", _list(_IMAGE)),
    _Operation("post", "/images", "Fetch an image", _IMAGE, _ref("ImageRequest"), 202),
    _Operation("get", "/images/{image_id}", "An image", _IMAGE),
    _Operation("delete", "/images/{image_id}", "Remove an image that no guest stands on", _IMAGE),
    _Operation("get", "/metadata", "The host's metadata", _METADATA),
    _Operation("patch", "/metadata", 'Change it: null or "" unsets', _METADATA, _PATCH),
    _Operation("get", f"{_G}/metadata", "A guest's metadata", _METADATA),
    _Operation("patch", f"{_G}/metadata", 'Change it: null or "" unsets', _METADATA, _PATCH),
    _Operation("get", f"{_G}/metrics/cpu", "A guest's CPU time", _list(_COUNTERS)),
    _Operation("get", f"{_G}/metrics/disk", "The counters of a guest's disks", _COUNTERS),
    _Operation("get", f"{_G}/metrics/nic", "The counters of a guest's interfaces", _COUNTERS),
    _Operation(
        "get",
        f"{_G}/console",
        "What a guest wrote to its serial console; X-Console-End is the place behind it",
        _TEXT,
        query=(_SINCE, _LIMIT_BYTES),
        media_type="text/plain",
    ),
    *_snapshots(f"{_G}/snapshots", "a guest"),
    *_snapshots(f"{_G}/disks/{{disk}}/snapshots", "a disk"),
)


@dataclass(slots=True)
class _Paths:
    """The document's paths as they grow."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, operation: _Operation) -> None:
        names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
        in_path = [{"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]} for name in names]
        success: Schema = {
            "description": "Done" if operation.status != 202 else "Taken; the job says how it goes",
            "content": {operation.media_type: {"schema": operation.answer}},
        }
        if operation.status == 202:
            success["headers"] = {"X-Guest-Job-ID": {"schema": _ID, "required": True}}
        problem = {"description": "Refused", "content": {"application/json": {"schema": _ref("Problem")}}}
        described: dict[str, Any] = {
            "summary": operation.summary,
            "parameters": [*in_path, *operation.query],
            "responses": {str(operation.status): success, "4XX": problem, "5XX": problem},
        }
        if operation.body is not None:
            content = {"application/json": {"schema": operation.body}}
            described["requestBody"] = {"required": True, "content": content}
        self.found.setdefault(operation.path, {})[operation.method] = described


def openapi_document() -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    kinds = (Guest, ImageRequest, Image, AgentJob, Problem)
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    paths = _Paths()
    for operation in OPERATIONS:
        paths.add(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Loch Ness agent",
            "version": "1",
            "description": "The work on one hypervisor's guests. What takes time is a job: 202, its id in the header "
            "X-Guest-Job-ID. A request that comes again under its X-Request-ID is done once.",
        },
        "paths": paths.found,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}, "certificate": {"type": "mutualTLS"}},
        },
    }
