"""Which hypervisor is this machine?

Invariant: a failed `set_hypervisor_id` leaves the ID that was set before.

Not guaranteed: that the hypervisor exists in the store.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Final

from lochness.errors import ValidationError
from lochness.ids import GuestID, HypervisorID, is_id, new_id, parse_id

__all__ = [
    "HYPERVISOR_ID_VARIABLE",
    "GuestID",
    "HypervisorID",
    "get_hypervisor_id",
    "is_id",
    "new_id",
    "parse_id",
    "resolve_hypervisor_id",
    "set_hypervisor_id",
]

HYPERVISOR_ID_VARIABLE: Final = "HYPERVISOR_ID"


def resolve_hypervisor_id(argument: str, environment: Mapping[str, str], hostname: Callable[[], str]) -> HypervisorID:
    """The ID by DESIGN's order: `argument`, then the variable HYPERVISOR_ID, then the hostname; blanks are passed over.

    Raises ValidationError that says where the refused value came from.
    """
    if argument.strip():
        value, source = argument, "the argument"
    elif environment.get(HYPERVISOR_ID_VARIABLE, "").strip():
        value, source = environment[HYPERVISOR_ID_VARIABLE], f"the environment variable {HYPERVISOR_ID_VARIABLE}"
    else:
        value, source = hostname(), "the hostname"
    if not is_id(value):
        raise ValidationError(
            f"the hypervisor ID must be a UUID, got {value!r} from {source} "
            f"(order: --id, {HYPERVISOR_ID_VARIABLE}, hostname)",
            field="hypervisor_id",
            source=source,
        )
    return HypervisorID(parse_id(value, field="hypervisor_id"))


_lock: Final = threading.Lock()
_hypervisor_id = HypervisorID("")


def set_hypervisor_id(id: str = "") -> str:
    """Set this process's hypervisor ID and answer it; blank falls back to HYPERVISOR_ID, then the hostname.

    Raises ValidationError when the value is not a UUID; the ID set before then stays.
    """
    global _hypervisor_id  # process-wide by definition: one process runs on one machine
    resolved = resolve_hypervisor_id(id, os.environ, socket.gethostname)
    with _lock:
        _hypervisor_id = resolved
    return resolved


def get_hypervisor_id() -> str:
    """What was set, "" when nothing was; makes no attempt to discover it."""
    with _lock:
        return _hypervisor_id
