"""With which certificates does a server of ours show itself, and whose does it ask for?

1. Files and combinations that cannot work are refused where they are checked, naming the file.
2. A certificate that was renewed on the disk is shown to whoever connects after `Certificates.renew`; one that cannot
   be used changes nothing.

Not guaranteed: that a new client CA counts before a restart, or that a renewed certificate reaches open connections.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from lochness.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """PEM files, "" for none; as settings they are tls_cert, tls_key and tls_client_ca. `client_ca`: who connects must
    show a certificate of it."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""

    def check(self) -> None:
        """Raise ConfigurationError when these do not go together, or a file cannot be used."""
        if bool(self.cert) != bool(self.key):
            raise ConfigurationError("tls_cert and tls_key belong together, only one is given")
        if self.client_ca and not self.cert:
            raise ConfigurationError("tls_client_ca needs tls_cert and tls_key")
        self.context()

    def context(self) -> ssl.SSLContext | None:
        """What the server listens with, None for clear text. Raises ConfigurationError."""
        if not self.cert:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.load(context)
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:  # ssl.SSLError too
                raise ConfigurationError(f"tls_client_ca {self.client_ca} cannot be used: {_why(error)}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Let `context` show the certificate as it is on the disk. Raises ConfigurationError."""
        try:
            context.load_cert_chain(self.cert, self.key)
        except OSError as error:
            raise ConfigurationError(
                f"tls_cert {self.cert} with tls_key {self.key} cannot be used: {_why(error)}"
            ) from error


class Certificates:
    """The certificate that `context` shows, kept as it is on the disk."""

    def __init__(self, files: ServerTLS, context: ssl.SSLContext) -> None:
        self._files = files
        self._context = context
        self._seen = self._stamps()

    def renew(self) -> bool:
        """Take up a certificate that was replaced; whether it was. Raises ConfigurationError, each time."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._files.context()  # a pair that does not fit would leave the context with half of it
        self._files.load(self._context)
        self._seen = stamps
        return True

    def _stamps(self) -> list[tuple[int, int]]:
        stamps = []
        for name in (self._files.cert, self._files.key):
            try:
                status = Path(name).stat()
            except OSError as error:
                raise ConfigurationError(f"{name} cannot be read: {_why(error)}") from error
            stamps.append((status.st_ino, status.st_mtime_ns))
        return stamps


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
