"""Which certificate files suit https, and what does a failed handshake mean to who has to mend it?

Invariants:
1. Files that could never work are refused before the first call, by name.
2. A failed handshake is told as what is wrong with which file or endpoint, not in gRPC's words (those are the cause).

Not guaranteed: that files which are accepted here are accepted by etcd. They are read once; new ones need a restart.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lochness.errors import ConfigurationError
from lochness.store.endpoints import Endpoint

_VERIFY: Final = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([a-zA-Z -]+)")
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
#: How a member refuses our certificate: TLS 1.3 tells it after our side of the handshake is done, by an alert that gRPC
#: reports as unreadable data; when the connection's end is seen first, that is all there is.
_REFUSED: Final = ("Unwrap failed", "SSLV3_ALERT", "TLSV1_ALERT")
_CUT_OFF: Final = ("Socket closed", "Connection reset", "Broken pipe")


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files for https: who signs the members' certificates, and what we show them (both or neither)."""

    ca: Path | None
    cert: Path | None
    key: Path | None

    def check(self, endpoints: Sequence[Endpoint]) -> None:
        """Raise ConfigurationError when the files do not suit the URLs, each other, or can not be read."""
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("etcd's client certificate and key belong together, only one is given")
        given = [path for path in (self.ca, self.cert, self.key) if path is not None]
        if endpoints[0].is_tls and self.ca is None:
            raise ConfigurationError(f"{endpoints[0]} needs the CA file that etcd's certificate is checked against")
        if given and not endpoints[0].is_tls:
            raise ConfigurationError(f"certificate files are given but {endpoints[0]} is not https")
        for path in given:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise ConfigurationError(f"{path} can not be read: {error.strerror}") from error
            if b"-----BEGIN" not in content:
                raise ConfigurationError(f"{path} is not a PEM file")
        self._check_content()

    def _check_content(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError as error:
                raise ConfigurationError(f"{self.ca} holds no usable certificate of a CA") from error
        if self.cert is not None and self.key is not None:
            try:
                # An empty password instead of none: a daemon must not stop at a question on its terminal.
                context.load_cert_chain(self.cert, self.key, password="")
            except ssl.SSLError as error:
                does_not_fit = error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
                problem = "is not the key of" if does_not_fit else "is not usable (damaged or encrypted?) with"
                raise ConfigurationError(f"the key {self.key} {problem} the certificate {self.cert}") from error

    def explain(self, text: str, endpoint: Endpoint) -> str:
        """What gRPC's `text` about a connection that was not made means, "" when it is not about TLS."""
        if "failed to connect" not in text:
            return ""
        is_refused = any(word in text for word in _REFUSED)
        is_cut_off = any(word in text for word in _CUT_OFF)
        if not endpoint.is_tls:
            return "it closed the connection at once (does it want https?)" if is_cut_off else ""
        if found := _VERIFY.search(text):
            return f"its certificate does not verify against the CA file {self.ca}: {found[1]}"
        if "Hostname Verification Check failed" in text:
            return f"its certificate is not for the name {endpoint.host}"
        if any(word in text for word in _NOT_TLS):
            return "it does not speak TLS (does it want http?)"
        shown = f"the client certificate {self.cert}" if self.cert else "clients without a certificate"
        if is_refused:
            reason = " (expired, or of a CA that it does not trust)" if self.cert else ""
            return f"it does not accept {shown}{reason}"
        return f"it ended the TLS handshake (does it speak TLS, does it accept {shown}?)" if is_cut_off else ""
