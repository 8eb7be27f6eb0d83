"""The store in etcd. Nothing outside this package imports etcd's client or gRPC."""

from lochness.store.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
