"""What does a guest's metadata ask of the host? Pure.

| name | meaning |
|---|---|
| name | the guest's title, and its host name as far as it can be one |
| user-data | cloud-init's user data, as it is |
| ssh-keys | public keys, one a line |
| nameservers | IP addresses, separated by spaces or commas |
| firmware | "bios" (default) or "uefi" |

Everything else in it is the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from lochness.errors import ValidationError
from lochness.model.address import normalized_ip
from lochness.model.record import require

FIRMWARES: Final = ("", "bios", "uefi")
SSH_KEYS_MAX: Final = 100
NAMESERVERS_MAX: Final = 8
#: Options before the key's type are allowed, as in an authorized_keys file; what follows the type is base64.
_SSH_KEY: Final = re.compile(r"(?:\S.*\s)?(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+[A-Za-z0-9+/]+=*(?:\s.*)?")


def firmware(metadata: Mapping[str, str]) -> Literal["bios", "uefi"]:
    """Raises ValidationError."""
    wanted = metadata.get("firmware", "")
    require(wanted in FIRMWARES, f'metadata.firmware must be "bios" or "uefi", got {wanted!r}', "metadata.firmware")
    return "uefi" if wanted == "uefi" else "bios"


def ssh_keys(metadata: Mapping[str, str]) -> list[str]:
    """Raises ValidationError."""
    keys = [line.strip() for line in metadata.get("ssh-keys", "").splitlines() if line.strip()]
    require(len(keys) <= SSH_KEYS_MAX, f"at most {SSH_KEYS_MAX} ssh keys, got {len(keys)}", "metadata.ssh-keys")
    for number, key in enumerate(keys, 1):
        require(
            _SSH_KEY.fullmatch(key) is not None,
            f"metadata.ssh-keys, line {number}, is no public key: {key[:40]!r}",
            "metadata.ssh-keys",
        )
    return keys


def nameservers(metadata: Mapping[str, str]) -> list[str]:
    """Raises ValidationError."""
    field = "metadata.nameservers"
    addresses = [normalized_ip(text, field) for text in re.split(r"[\s,]+", metadata.get("nameservers", "")) if text]
    if len(addresses) > NAMESERVERS_MAX:
        raise ValidationError(f"at most {NAMESERVERS_MAX} nameservers, got {len(addresses)}", field=field)
    return addresses


def check_wishes(metadata: Mapping[str, str]) -> None:
    """Raises ValidationError naming what cannot be."""
    firmware(metadata)
    ssh_keys(metadata)
    nameservers(metadata)
