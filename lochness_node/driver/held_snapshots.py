"""How are the disks of a running QEMU snapshotted inside their files?

libvirt's own internal snapshots of a running guest hold its memory too: they stop the guest for as long as that is
written, and starting from one would bring back an old fencing token. So QEMU itself is asked, through libvirt, for
snapshots of the disks alone.

1. Several disks are snapshotted in one of QEMU's transactions: all at one moment, or none.
2. A file is found by its path among the guest's block devices; one that is not there is an error, never passed over.

Not guaranteed: anything for what is not QEMU: libvirt then refuses, as it does for a domain that is not running.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import libvirt_qemu

from lochness.errors import DriverError
from lochness_node.driver.protocol import HeldSnapshot


def read_snapshots(domain: Any, paths: Sequence[str]) -> Mapping[str, Sequence[HeldSnapshot]]:
    """The internal snapshots of each of these files. Raises DriverError, libvirtError."""
    inserted = _inserted(domain)
    return {path: _snapshots(_found(inserted, path)) for path in paths}


def take_snapshot(domain: Any, paths: Sequence[str], name: str) -> None:
    """Raises DriverError, libvirtError; nothing was taken then."""
    inserted = _inserted(domain)
    actions = [
        {"type": "blockdev-snapshot-internal-sync", "data": {"device": _node(inserted, path), "name": name}}
        for path in paths
    ]
    _ask(domain, "transaction", {"actions": actions})


def drop_snapshot(domain: Any, paths: Sequence[str], name: str) -> None:
    """Raises DriverError, libvirtError; it may be gone from the first of them then."""
    inserted = _inserted(domain)
    for path in paths:
        _ask(domain, "blockdev-snapshot-delete-internal-sync", {"device": _node(inserted, path), "name": name})


def _inserted(domain: Any) -> dict[str, dict[str, Any]]:
    """What is in each of the guest's drives, by file."""
    drives = _ask(domain, "query-block", {})
    return {drive["inserted"]["file"]: drive["inserted"] for drive in drives if "inserted" in drive}


def _found(inserted: Mapping[str, dict[str, Any]], path: str) -> dict[str, Any]:
    if path not in inserted:
        raise DriverError(f"the running guest has no disk {path}")
    return inserted[path]


def _node(inserted: Mapping[str, dict[str, Any]], path: str) -> str:
    return str(_found(inserted, path)["node-name"])


def _snapshots(inserted: Mapping[str, Any]) -> list[HeldSnapshot]:
    return [
        HeldSnapshot(each["name"], each["date-sec"] + each["date-nsec"] / 1e9)
        for each in inserted.get("image", {}).get("snapshots", [])
    ]


def _ask(domain: Any, command: str, arguments: Mapping[str, object]) -> Any:
    """QEMU's answer. Raises DriverError with its words."""
    question = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps(question), 0))
    if "error" in answer:
        raise DriverError(f"QEMU refused {command}: {answer['error'].get('desc', answer['error'])}")
    return answer["return"]
