"""With what does one come to the agents: whose certificates are believed, and what is shown to them?

1. What cannot work is refused when it is made, with the file, not at the first request.
2. The token is never sent in clear text over a network: only by https, or to this host.

Certificate files are read once; renewed ones count for whoever is made later.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from lochness.errors import ConfigurationError

#: What a header can carry, and no shorter than can be guessed.
_TOKEN: Final = re.compile(r"[\x21-\x7e]{16,512}")
TOKEN_RULE: Final = "16 to 512 printable ASCII letters without spaces"


@dataclass(frozen=True, slots=True)
class AgentAccess:
    """PEM files and the bearer token, "" for none. With `ca` the agents are asked by https unless a URL says otherwise.

    `cert` and `key` are the client's, both or neither.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    token: str = ""

    def check(self) -> None:
        """Raise ConfigurationError when these cannot work together or a file cannot be used."""
        if bool(self.cert) != bool(self.key):
            raise ConfigurationError("agent_cert and agent_key belong together, only one is given")
        if self.cert and not self.ca:
            raise ConfigurationError("agent_cert needs agent_ca, which the agents' certificates are checked against")
        if self.token:
            check_token("agent_token", self.token)
        self.tls()

    @property
    def scheme(self) -> str:
        """http or https, for an agent that nobody gave a URL."""
        return "https" if self.ca else "http"

    def tls(self) -> ssl.SSLContext | None:
        """None where there is no CA: https then goes by the system's. Raises ConfigurationError."""
        if not self.ca:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:  # ssl.SSLError too
            raise ConfigurationError(f"agent_ca {self.ca} cannot be used: {_why(error)}") from error
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key)
            except OSError as error:
                raise ConfigurationError(
                    f"agent_cert {self.cert} with agent_key {self.key} cannot be used: {_why(error)}"
                ) from error
        return context

    def headers(self, url: str) -> dict[str, str]:
        """What shows the token to the agent at `url`. Raises ConfigurationError when rule 2 forbids it."""
        if not self.token:
            return {}
        parts = urlsplit(url)
        if parts.scheme != "https" and not _is_this_host(parts.hostname or ""):
            raise ConfigurationError(f"the agent's token is not sent to {url} in clear text; it needs https")
        return {"Authorization": f"Bearer {self.token}"}


def check_token(name: str, token: str) -> None:
    """Raise ConfigurationError unless `token` can be one; the text does not quote it."""
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(f"{name} must be {TOKEN_RULE}, got {len(token)} letters")


def _is_this_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
