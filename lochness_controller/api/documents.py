"""What does the OpenAPI document say of bodies and answers?

Handlers take bodies as bytes and answer records as JSON, because an API that names the wrong field, and ignores fields
that it does not know, needs the records' own decoding. What the framework can not see of that is described here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, Parameter, Reference, RequestBody, Schema

from lochness.model.record import Record
from lochness_controller.api.reference import ReferencePage

CONFIG: Final = OpenAPIConfig(
    title="Loch Ness",
    version="1",
    description='The controller\'s API. Errors are {"message", "code", "reason", ...}.',
    path="/schema",
    render_plugins=[JsonRenderPlugin(), ReferencePage()],
)


class Problem(msgspec.Struct, kw_only=True):
    """An error: `code` is the status, `reason` a stable word, `field` what was wrong in the request, if anything."""

    message: str
    code: int
    reason: str
    field: str = ""


def answers(kind: Any, status: int = 200, *errors: int) -> dict[int, ResponseSpec]:
    """What a handler answers: `kind` with `status` when it succeeds, a Problem with each of `errors`."""
    specs = {status: ResponseSpec(data_container=kind, description="Done", generate_examples=False)}
    for error in (400, *errors, 503):
        specs[error] = ResponseSpec(data_container=Problem, description="Refused", generate_examples=False)
    return specs


def takes(kind: type[Record] | None = None) -> type[Operation]:
    """An operation whose body is an object with the fields of `kind`, none of them required (None: of strings)."""
    if kind is not None:
        return takes_fields(kind)
    return _operation_with(Schema(type=OpenAPIType.OBJECT, additional_properties=Schema(type=OpenAPIType.STRING)))


def takes_fields(kind: type[msgspec.Struct]) -> type[Operation]:
    """An operation whose body is an object with the fields of `kind`."""
    described = msgspec.json.schema(kind)
    return _operation_with(_schema(described["$defs"][kind.__name__], described["$defs"]))


def listing(fields: Iterable[str]) -> type[Operation]:
    """An operation that answers a list of records with these fields, a part of which can be asked for."""
    text = Schema(type=OpenAPIType.STRING)
    parameters: list[Parameter | Reference] = [
        Parameter("limit", "query", schema=Schema(type=OpenAPIType.INTEGER, minimum=1), description="at most so many"),
        Parameter("after", "query", schema=text, description="those behind this one in the list"),
    ]
    parameters += [
        Parameter(name, "query", schema=text, description=f"those with this {name}; {name}.MEMBER of an object")
        for name in sorted(fields)
    ]

    @dataclass
    class ListOperation(Operation):
        def __post_init__(self) -> None:
            self.parameters = [*(self.parameters or []), *parameters]

    return ListOperation


def takes_list(of: Literal["string", "integer"]) -> type[Operation]:
    """An operation whose body is an array of strings or of whole numbers."""
    return _operation_with(Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType(of))))


def _operation_with(body: Schema) -> type[Operation]:
    @dataclass
    class OperationWithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody({"application/json": OpenAPIMediaType(schema=body)}, required=True)

    return OperationWithBody


def _schema(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """msgspec's JSON schema of a record's field as the framework's object."""
    if "$ref" in described:
        return _schema(definitions[described["$ref"].rpartition("/")[2]], definitions)
    schema = Schema(
        type=OpenAPIType(described["type"]) if "type" in described else None,
        title=described.get("title"),
        enum=described.get("enum"),
        minimum=described.get("minimum"),
        maximum=described.get("maximum"),
    )
    if "properties" in described:
        schema.properties = {name: _schema(each, definitions) for name, each in described["properties"].items()}
    if isinstance(described.get("additionalProperties"), dict):
        schema.additional_properties = _schema(described["additionalProperties"], definitions)
    return schema
