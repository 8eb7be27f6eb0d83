"""The page for people: GET / and what it needs, below /page.

The files are lochness_controller/page/, served as they are: there is no build, and nothing comes from elsewhere.

Invariants:
1. Only files that were in the directory at the start are served, and they are read once.
2. The page runs nothing but its own scripts, talks to nobody but the controller that served it, is framed by nobody,
   and can not turn text into markup (see `POLICY`).
3. A browser asks each time whether a file has changed (ETag), so that a page is never of two versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from litestar import Request, Response, Router, get
from litestar.params import FromPath

from lochness.errors import NotFoundError

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_FIRST: Final = "index.html"
_NOT_MODIFIED: Final = 304

AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, its media type, and a tag that is the same exactly while the bytes are."""

    body: bytes
    media_type: str
    tag: str


def load_assets() -> dict[str, Asset]:
    """Every file of the page by its name."""
    found: dict[str, Asset] = {}
    for file in resources.files("lochness_controller").joinpath("page").iterdir():
        media_type = _TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            body = file.read_bytes()
            # Weak: the same file is sent plain or compressed.
            found[file.name] = Asset(body, media_type, f'W/"{hashlib.sha256(body).hexdigest()[:24]}"')
    return found


def router() -> Router:
    """The routes."""
    assets = load_assets()

    @get("/", include_in_schema=False)
    async def page(request: AnyRequest) -> Response[bytes]:
        """The page."""
        return _answer(assets[_FIRST], request)

    @get("/page/{name:str}", include_in_schema=False)
    async def asset(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
        """One of its files."""
        if name not in assets:
            raise NotFoundError("file", name)
        return _answer(assets[name], request)

    return Router(path="/", route_handlers=[page, asset])


def _answer(asset: Asset, request: AnyRequest) -> Response[bytes]:
    headers = {**_HEADERS, "etag": asset.tag}
    if is_known(request.headers.get("if-none-match", ""), asset.tag):
        return Response(b"", status_code=_NOT_MODIFIED, headers=headers, media_type=asset.media_type)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


def is_known(if_none_match: str, tag: str) -> bool:
    """Whether the client has it already. The tags are compared weakly, as RFC 9110 has it for this header."""
    given = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return "*" in given or tag.removeprefix("W/") in given
