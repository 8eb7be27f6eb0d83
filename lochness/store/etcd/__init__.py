"""The store in etcd. Nothing outside this package imports etcd's client or gRPC."""

import os

# gRPC's C core writes lines of its own to standard error, also about what it gets over by itself. What they are about
# reaches the caller as an error. Read when it is loaded, so it is set before.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from lochness.store.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
