"""The API's reference as a page for people: GET /schema, made from the OpenAPI document. It loads nothing.

One section for each path, with its methods: what it does, its parameters, the fields of its body, and what is answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from litestar import Request
from litestar.enums import MediaType
from litestar.openapi.plugins import OpenAPIRenderPlugin

from lochness.model.record import JSONObject

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_STYLE: Final = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
code, .path { font-family: ui-monospace, monospace; font-size: .93em; }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2rem; font-size: 1.05rem; }
nav { columns: 16rem; margin: 1rem 0; } nav a { display: block; }
section { margin: .6rem 0 .6rem 1rem; } .method { font-weight: 700; display: inline-block; min-width: 4.5em; }
table { border-collapse: collapse; margin: .3rem 0 .6rem; }
td, th { border-bottom: 1px solid var(--line); padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; } small { opacity: .75; }
"""


class ReferencePage(OpenAPIRenderPlugin):
    """The page at `path` below the document's."""

    def __init__(self, *, path: str = "/") -> None:
        super().__init__(path=path, media_type=MediaType.HTML)

    def render(self, request: Request[Any, Any, Any], openapi_schema: JSONObject) -> bytes:
        """The page of the document `openapi_schema`."""
        del request
        return page_of(openapi_schema).encode()


def page_of(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info, paths = document["info"], document.get("paths", {})
    title = escape(f"{info['title']} API {info['version']}")
    links = "".join(f'<a href="#{escape(path)}">{escape(path)}</a>' for path in sorted(paths))
    sections = "".join(_path(path, paths[path], document) for path in sorted(paths))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1><p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="/schema/openapi.json">openapi.json</a>.</p>'
        f"<nav>{links}</nav>{sections}</body></html>\n"
    )


def _path(path: str, item: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    operations = "".join(_operation(name, item[name], document) for name in _METHODS if name in item)
    return f'<h2 id="{escape(path)}" class="path">{escape(path)}</h2>{operations}'


def _operation(method: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    text = operation.get("description") or operation.get("summary", "")
    parameters = [
        (each["name"], each["in"], _kind(each.get("schema", {}), document), each.get("description", ""))
        for each in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = _fields(body, document)
    answers = [
        (status, answer.get("description", ""), _answer_kind(answer, document))
        for status, answer in sorted(operation.get("responses", {}).items())
    ]
    return (
        f'<section><span class="method">{method.upper()}</span> {escape(text)}'
        f"{_table(('parameter', 'in', 'type', ''), parameters)}"
        f"{_table(('field of the body', 'type'), fields)}"
        f"<details><summary><small>answers</small></summary>"
        f"{_table(('status', '', 'body'), answers)}</details></section>"
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _fields(schema: Mapping[str, Any], document: Mapping[str, Any]) -> list[tuple[str, str]]:
    schema = _resolved(schema, document)
    if not schema:
        return []
    if not schema.get("properties"):
        return [("(the body)", _kind(schema, document))]
    return [(name, _kind(each, document)) for name, each in schema["properties"].items()]


def _answer_kind(answer: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    contents = answer.get("content", {})
    return ", ".join(_kind(each.get("schema", {}), document) for each in contents.values())


def _kind(schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """A type in a few words: "array of string", "object", a record's name."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return str(_resolved(schema, document).get("title") or name)
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(each, document) for each in schema[several]))
    kind = schema.get("type", "any")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if words == "array":
        return f"array of {_kind(schema.get('items', {}), document)}"
    if schema.get("enum"):
        return " | ".join(map(str, schema["enum"]))
    inner = schema.get("additionalProperties")
    return f"object of {_kind(inner, document)}" if words == "object" and isinstance(inner, dict) and inner else words


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found.get(part, {})
        schema = found
    return schema
