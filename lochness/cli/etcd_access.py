"""How do the few commands that work on the store itself reach it? Not over the controller: it may be what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness.defaults import DEFAULT_ETCD

if TYPE_CHECKING:
    from lochness.store.protocol import Store

TIMEOUT_S: Final = 30.0
"""For one call: a whole key space of a large cluster is some hundred MB."""

EtcdOption = Annotated[
    str, typer.Option("--etcd", envvar="LOCHNESS_ETCD", metavar="URL[,URL]", help="The members of etcd.")
]
CaOption = Annotated[str, typer.Option("--etcd-ca", envvar="LOCHNESS_ETCD_CA", metavar="FILE", show_default=False)]
CertOption = Annotated[
    str, typer.Option("--etcd-cert", envvar="LOCHNESS_ETCD_CERT", metavar="FILE", show_default=False)
]
KeyOption = Annotated[str, typer.Option("--etcd-key", envvar="LOCHNESS_ETCD_KEY", metavar="FILE", show_default=False)]

__all__ = ["DEFAULT_ETCD", "CaOption", "CertOption", "EtcdOption", "KeyOption", "opened_store"]


@contextmanager
def opened_store(etcd: str, ca: str, cert: str, key: str) -> Iterator[Store]:
    """The store at `etcd`. Raises ConfigurationError for what can never work, UnavailableError at the first call."""
    from lochness.store.connect import open_store  # takes longer to load than --help may take

    with open_store(etcd, ca=ca, cert=cert, key=key, timeout_s=TIMEOUT_S) as store:
        yield store
