"""How does one get certificates for servers and clients, good ones and bad ones on demand?

1. Everything is made by the openssl program below the caller's directory, nothing is fetched or kept elsewhere.
2. A certificate is for the names it was issued for and nothing else, and serves both sides of a connection.
"""

from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lochness.errors import UnavailableError
from lochness_lab.processes import require_program

LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the certificate and its private key."""

    cert: Path
    key: Path


class CertificateAuthority:
    """A CA of one's own below `directory`; `ca` is its certificate. Raises UnavailableError when openssl fails."""

    def __init__(self, directory: Path, *, name: str = "test") -> None:
        self._openssl = require_program("openssl", "openssl")
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ca = directory / "ca.crt"
        self._run("req", "-x509", *self._new_key("ca"), "-out", "ca.crt", "-subj", f"/CN={name}", "-days", "2")

    def issue(self, file_name: str, *names: str, days: int = 2) -> Certificate:
        """A certificate in `file_name`.crt for the addresses and host names `names`; below 0 `days` it has expired."""
        alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
        extensions = ["basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth"]
        extensions += [f"subjectAltName={alternatives}"] if names else []
        (self._directory / f"{file_name}.ext").write_text("\n".join(extensions) + "\n")
        self._run("req", *self._new_key(file_name), "-out", f"{file_name}.csr", "-subj", f"/CN={file_name}")
        signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days)]
        files = ["-in", f"{file_name}.csr", "-extfile", f"{file_name}.ext", "-out", f"{file_name}.crt"]
        self._run("x509", "-req", *signing, *files)
        return Certificate(self._directory / f"{file_name}.crt", self._directory / f"{file_name}.key")

    @staticmethod
    def _new_key(name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]

    def _run(self, *words: str) -> None:
        command = [self._openssl, *words]
        done = subprocess.run(
            command, cwd=self._directory, check=False, capture_output=True, text=True, timeout=LIMIT_S
        )
        if done.returncode:
            raise UnavailableError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
