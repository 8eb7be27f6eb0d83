"""What is the host's own metadata, and how does metadata change by a PATCH?

A change is on the disk when its answer goes out, whole; two at a time lose nothing of each other.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from lochness.errors import UnavailableError, ValidationError
from lochness.model.record import Metadata, decode_object
from lochness_node.agent.durable import replace_file

NAMES_MAX: Final = 1000


def parse_patch(body: bytes) -> dict[str, str | None]:
    """The changes in a PATCH: a string sets, null unsets. Raises ValidationError."""
    changes = decode_object(body)
    for name, value in changes.items():
        if not name:
            raise ValidationError("a name in metadata must not be empty", field="metadata")
        if not (value is None or isinstance(value, str)):
            raise ValidationError(f"metadata {name!r} must be a string or null", field=name)
    return changes


def patched(metadata: Mapping[str, str], changes: Mapping[str, str | None]) -> Metadata:
    """`metadata` with `changes`; null and "" unset. Raises ValidationError beyond NAMES_MAX names. Pure."""
    merged = {**metadata, **changes}
    kept = {name: value for name, value in merged.items() if value}
    if len(kept) > NAMES_MAX:
        raise ValidationError(f"metadata has at most {NAMES_MAX} names, got {len(kept)}", field="metadata")
    return kept


class HostMetadata:
    """The host's metadata in the file `path`; its directory exists. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def read(self) -> Metadata:
        """Raises UnavailableError when the file cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Metadata)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise UnavailableError(f"the host's metadata in {self._path} cannot be read: {error}") from error

    def patch(self, changes: Mapping[str, str | None]) -> Metadata:
        """The whole afterwards. Raises ValidationError, UnavailableError."""
        with self._lock:
            metadata = patched(self.read(), changes)
            try:
                replace_file(self._path, msgspec.json.encode(metadata) + b"\n", mode=0o600)
            except OSError as error:
                raise UnavailableError(f"cannot write {self._path}: {error.strerror}") from error
            return metadata
