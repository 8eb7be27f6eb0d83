"""Which URLs may name an etcd? `http(s)://HOST[:PORT]`, nothing after it.

Not guaranteed: that the host exists or answers. Nothing is resolved here: a dead name server must not prevent a start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from lochness.errors import ConfigurationError

DEFAULT_PORT: Final = 2379

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|[0-9a-fA-F:.]+(%[A-Za-z0-9_.-]+)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one member of etcd listens for clients. `host` is a name or an address, without brackets."""

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.bracketed_host}:{self.port}"

    @property
    def bracketed_host(self) -> str:
        """The host as a URL spells it: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_endpoints(urls: Sequence[str]) -> tuple[Endpoint, ...]:
    """The endpoints that `urls` name. Raises ConfigurationError naming the URL and what is wrong with it."""
    if not urls:
        raise ConfigurationError("no etcd URL given; expected http(s)://HOST:PORT[,...]")
    endpoints = tuple(_parse(url) for url in urls)
    if len({endpoint.is_tls for endpoint in endpoints}) > 1:
        raise ConfigurationError(f"etcd URLs must all be http or all be https, got {','.join(urls)}")
    return endpoints


def _parse(url: str) -> Endpoint:
    def refuse(problem: str) -> ConfigurationError:
        return ConfigurationError(f"etcd URL {url!r}: {problem}; expected http(s)://HOST:PORT", url=url)

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise refuse("it is not a URL") from error
    if parts.scheme not in ("http", "https"):
        raise refuse(f"the scheme is {parts.scheme!r}" if "://" in url else "the scheme is missing")
    if "@" in parts.netloc:
        raise refuse("a user name does not belong here")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise refuse(f"{url.split(parts.netloc, 1)[-1]!r} does not belong behind the port")
    if not parts.hostname:
        raise refuse("the host is missing")
    if not _HOST.fullmatch(parts.hostname):
        raise refuse(f"the host {parts.hostname!r} is not a name or address")
    try:
        port = parts.port
    except ValueError as error:
        raise refuse(f"the port {parts.netloc.rpartition(':')[2]!r} is not a number from 1 to 65535") from error
    if port == 0:
        raise refuse("the port '0' is not a number from 1 to 65535")
    return Endpoint(parts.hostname, port or DEFAULT_PORT, parts.scheme == "https")
