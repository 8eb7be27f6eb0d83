"""Loch Ness: a virtual machine manager for clusters of libvirt/KVM hypervisors, its state in etcd.

    import lochness

    with lochness.open_store("http://127.0.0.1:2379") as store:
        context = lochness.Context(store)
        for hypervisor in context.hypervisors():
            print(hypervisor.id, hypervisor.available_resources)

Names are loaded when they are first used, so that a daemon pays only for what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lochness.agent_client import Agent as Agent
    from lochness.agent_client import MistifyAgent as MistifyAgent
    from lochness.context import Context as Context
    from lochness.entities.catalog import Flavor as Flavor
    from lochness.entities.catalog import FWGroup as FWGroup
    from lochness.entities.catalog import Image as Image
    from lochness.entities.catalog import Network as Network
    from lochness.entities.guest import Guest as Guest
    from lochness.entities.hypervisor import Hypervisor as Hypervisor
    from lochness.entities.subnet import Subnet as Subnet
    from lochness.entities.vlan import VLAN as VLAN
    from lochness.entities.vlan import VLANGroup as VLANGroup
    from lochness.errors import AgentJobError as AgentJobError
    from lochness.errors import AmbiguousWriteError as AmbiguousWriteError
    from lochness.errors import ConflictError as ConflictError
    from lochness.errors import HTTPCodeError as HTTPCodeError
    from lochness.errors import LochnessError as LochnessError
    from lochness.errors import NoCandidateError as NoCandidateError
    from lochness.errors import NotFoundError as NotFoundError
    from lochness.errors import UnavailableError as UnavailableError
    from lochness.errors import ValidationError as ValidationError
    from lochness.identity import get_hypervisor_id as get_hypervisor_id
    from lochness.identity import set_hypervisor_id as set_hypervisor_id
    from lochness.keys import AGENT_PORT as AGENT_PORT
    from lochness.keys import CONFIG_PATH as CONFIG_PATH
    from lochness.keys import FLAVOR_PATH as FLAVOR_PATH
    from lochness.keys import FWGROUP_PATH as FWGROUP_PATH
    from lochness.keys import GUEST_PATH as GUEST_PATH
    from lochness.keys import HYPERVISOR_PATH as HYPERVISOR_PATH
    from lochness.keys import JOB_PATH as JOB_PATH
    from lochness.keys import NETWORK_PATH as NETWORK_PATH
    from lochness.keys import SUBNET_PATH as SUBNET_PATH
    from lochness.keys import VLAN_PATH as VLAN_PATH
    from lochness.keys import VLANGROUP_PATH as VLANGROUP_PATH
    from lochness.model.fwgroup import FWRule as FWRule
    from lochness.model.resources import Resources as Resources
    from lochness.placement.candidates import DEFAULT_CANDIDATE_FUNCTIONS as DEFAULT_CANDIDATE_FUNCTIONS
    from lochness.placement.candidates import candidate_has_resources as candidate_has_resources
    from lochness.placement.candidates import candidate_has_subnet as candidate_has_subnet
    from lochness.placement.candidates import candidate_is_alive as candidate_is_alive
    from lochness.placement.candidates import candidate_randomize as candidate_randomize
    from lochness.store.connect import open_store as open_store
    from lochness.store.memory import MemoryStore as MemoryStore

__version__: Final = "0.1.0"

_HOMES: Final[dict[str, tuple[str, ...]]] = {
    "lochness.agent_client": ("Agent", "MistifyAgent"),
    "lochness.context": ("Context",),
    "lochness.entities.catalog": ("FWGroup", "Flavor", "Image", "Network"),
    "lochness.entities.guest": ("Guest",),
    "lochness.entities.hypervisor": ("Hypervisor",),
    "lochness.entities.subnet": ("Subnet",),
    "lochness.entities.vlan": ("VLAN", "VLANGroup"),
    "lochness.errors": (
        "AgentJobError",
        "AmbiguousWriteError",
        "ConflictError",
        "HTTPCodeError",
        "LochnessError",
        "NoCandidateError",
        "NotFoundError",
        "UnavailableError",
        "ValidationError",
    ),
    "lochness.identity": ("get_hypervisor_id", "set_hypervisor_id"),
    "lochness.keys": (
        "AGENT_PORT",
        "CONFIG_PATH",
        "FLAVOR_PATH",
        "FWGROUP_PATH",
        "GUEST_PATH",
        "HYPERVISOR_PATH",
        "JOB_PATH",
        "NETWORK_PATH",
        "SUBNET_PATH",
        "VLAN_PATH",
        "VLANGROUP_PATH",
    ),
    "lochness.model.fwgroup": ("FWRule",),
    "lochness.model.resources": ("Resources",),
    "lochness.placement.candidates": (
        "DEFAULT_CANDIDATE_FUNCTIONS",
        "candidate_has_resources",
        "candidate_has_subnet",
        "candidate_is_alive",
        "candidate_randomize",
    ),
    "lochness.store.connect": ("open_store",),
    "lochness.store.memory": ("MemoryStore",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # the table above is the one list


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
