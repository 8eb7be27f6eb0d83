"""What do the files that a guest is created with put into its metadata? Public keys and cloud-init's user data.

1. A private key never leaves this machine, and a file without any key is refused: a guest that nobody can log in to is
   found out about before it is made.

Not guaranteed: that a key is a valid one; the hypervisor's agent looks at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lochness.cli.whole_files import read_whole
from lochness.errors import ValidationError

_FILE_BYTES_MAX: Final = 1 << 20


def metadata_from_files(ssh_keys: Sequence[Path] | None, user_data: Path | None) -> dict[str, str]:
    """The metadata that --ssh-key and --user-data make. Raises ValidationError."""
    found = {}
    if ssh_keys:
        found["ssh-keys"] = "\n".join(key for file in ssh_keys for key in _public_keys(file))
    if user_data is not None:
        found["user-data"] = _text(user_data, "user-data")
        if not found["user-data"].strip():
            raise ValidationError(f"there is no user data in {user_data}", field="user-data")
    return found


def _public_keys(file: Path) -> list[str]:
    text = _text(file, "ssh-key")
    if "PRIVATE KEY" in text:
        raise ValidationError(f"{file} is a private key; the public one is mostly in {file}.pub", field="ssh-key")
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise ValidationError(f"there is no public key in {file}; ssh-keygen makes one", field="ssh-key")
    return keys


def _text(file: Path, field: str) -> str:
    try:
        return read_whole(file, limit_bytes=_FILE_BYTES_MAX, field=field).decode()
    except UnicodeDecodeError as error:
        raise ValidationError(f"{file} is not UTF-8 text", field=field) from error
