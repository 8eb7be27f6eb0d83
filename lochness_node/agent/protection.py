"""Who may talk to the agent: the certificates it shows and demands, and the bearer token.

1. Files and combinations that cannot work end the start, naming the file.
2. Tokens are compared in a time that tells nothing of them.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from lochness.agent_access import check_token
from lochness.server_tls import ServerTLS


@dataclass(frozen=True, slots=True)
class Protection:
    """The PEM files, and the token, "" for none."""

    files: ServerTLS = ServerTLS()
    token: str = ""

    @property
    def is_enough(self) -> bool:
        """Whether it may be listened beyond loopback: encrypted, and nobody gets in unknown."""
        return bool(self.files.cert and (self.files.client_ca or self.token))

    def check(self) -> None:
        """Raise ConfigurationError when these do not go together, or a file cannot be used."""
        if self.token:
            check_token("token", self.token)
        self.files.check()

    def admits(self, authorization: bytes) -> bool:
        """Whether a request with this Authorization header, b"" for none, has the token, where one is asked for."""
        if not self.token:
            return True
        scheme, _, given = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token.encode())
