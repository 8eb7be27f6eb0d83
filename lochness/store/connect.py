"""How does a process get its store from its settings?

Opening never connects: an etcd that is down delays the first call, not the start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lochness.errors import ConfigurationError
from lochness.store.etcd import EtcdStore
from lochness.store.protocol import Store

DEFAULT_TIMEOUT_S: Final = 5.0


def open_store(
    urls: str,
    *,
    ca: Path | str | None = None,
    cert: Path | str | None = None,
    key: Path | str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Store:
    """The store at `urls`: "http(s)://HOST[:PORT][,...]", the members of one etcd cluster.

    `ca`, `cert` and `key` are PEM files for https ("" and None: none); `timeout_s` bounds every call. Raises
    ConfigurationError, which names the bad part, for anything that could never work; never for an etcd that is away.
    """
    if urls.strip() == "memory:":
        raise ConfigurationError(
            "memory: is a store inside one process and can not be shared; give the URL of an etcd", url=urls
        )
    endpoints = [url.strip() for url in urls.split(",")]
    if not all(endpoints):
        raise ConfigurationError(f"etcd URLs {urls!r}: a URL between the commas is empty", url=urls)
    return EtcdStore(
        endpoints,
        ca_file=Path(ca) if ca else None,
        cert_file=Path(cert) if cert else None,
        key_file=Path(key) if key else None,
        timeout_s=timeout_s,
    )
