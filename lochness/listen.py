"""Where does a server listen, and is it allowed to?

1. Off loopback only where TLS and authentication protect it, or the configuration says `insecure = true`.
2. A host is an address or "localhost"; names are not looked up, as their meaning can change after the check.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

from lochness.errors import ConfigurationError

#: Connections the kernel holds for us until they are accepted.
_BACKLOG: Final = 256
_HOST_PORT: Final = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """`host` is an IP address, `port` 0..65535, 0 for one that the system chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_listen(listen: str, *, insecure: bool, is_protected: bool = False) -> Address:
    """`listen`, HOST:PORT or [IPv6]:PORT, taken apart.

    `is_protected`: there is TLS, and clients must show who they are.

    Raises ConfigurationError when malformed, or refused by rule 1.
    """
    match = _HOST_PORT.fullmatch(listen)
    if match is None or int(match["port"]) > 65535:  # the largest TCP port
        raise ConfigurationError(f"listen must be HOST:PORT or [IPv6]:PORT, got {listen!r}")
    name = match["v6"] or match["host"]
    try:
        host = ipaddress.ip_address("127.0.0.1" if name == "localhost" else name)
    except ValueError as error:
        raise ConfigurationError(f"listen needs an IP address or localhost, got {name!r} in {listen!r}") from error
    if not (host.is_loopback or insecure or is_protected):
        raise ConfigurationError(
            f"listening on {listen} is refused: it is not loopback, and TLS with authentication is not set up for it "
            "(insecure = true in the configuration allows it)"
        )
    return Address(str(host), int(match["port"]))


def open_listener(address: Address) -> tuple[socket.socket, Address]:
    """A listening socket and where it really listens. Raises ConfigurationError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror}") from error
    # Accepted connections inherit it. asyncio sets it only on sockets that name their protocol, which these do not, and
    # an answer of two writes then waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener, Address(address.host, listener.getsockname()[1])
