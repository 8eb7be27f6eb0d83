"""Which agent is asked, and for what? Read from the store, as records say now.

Every function raises NotFoundError (guest, hypervisor, flavor, subnet or image), ConflictError (reason "not_placed"),
ValidationError (no address), UnavailableError.
"""

from __future__ import annotations

from dataclasses import dataclass

from lochness import keys
from lochness.agent_requests import AGENT_URL_CONFIG, agent_url, guest_request, image_request
from lochness.errors import ConflictError, NotFoundError
from lochness.ids import parse_id
from lochness.model.flavor import FlavorRecord
from lochness.model.guest import GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.record import JSONObject
from lochness.model.subnet import SubnetRecord
from lochness.store.protocol import Key, Prefix, Selector, Store


@dataclass(frozen=True, slots=True)
class AgentDefaults:
    """Where an agent listens on its hypervisor's ip, unless the hypervisor's config says otherwise."""

    port: int = keys.AGENT_PORT
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class AgentTarget:
    """A hypervisor and where its agent listens."""

    hypervisor: str
    url: str


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """A POST to an agent."""

    target: AgentTarget
    path: str
    body: JSONObject | None = None

    @property
    def what(self) -> str:
        """The request in words."""
        return f"POST {self.target.url}{self.path}"


def target_of(store: Store, guest_id: str, defaults: AgentDefaults) -> AgentTarget:
    """The agent of the guest's hypervisor."""
    return _target(store, _guest(store, guest_id), defaults)


def creation(store: Store, guest_id: str, defaults: AgentDefaults) -> AgentRequest:
    """Create the guest."""
    guest = _guest(store, guest_id)
    selectors: list[Selector] = [Key(keys.flavor(guest.flavor)), Key(keys.subnet(guest.subnet or "none"))]
    if guest.vlangroup:
        selectors.append(Prefix(keys.vlangroup_vlans(guest.vlangroup)))
    reading = store.read(*selectors)
    flavor_item, subnet_item = reading.one(0), reading.one(1)
    vlans = sorted(int(keys.last_part(item.key)) for found in reading.ranges[2:] for item in found)
    if flavor_item is None:
        raise NotFoundError("flavor", guest.flavor, field="flavor")
    target = _target(store, guest, defaults)
    if subnet_item is None:
        raise NotFoundError("subnet", guest.subnet, field="subnet")
    flavor, subnet = FlavorRecord.from_json(flavor_item.value), SubnetRecord.from_json(subnet_item.value)
    return AgentRequest(target, "/guests", guest_request(guest, flavor, subnet, vlans))


def action(store: Store, guest_id: str, name: str, defaults: AgentDefaults) -> AgentRequest:
    """Do `name` ("delete", "reboot" ...) with the guest."""
    return AgentRequest(target_of(store, guest_id, defaults), f"/guests/{parse_id(guest_id)}/{name}")


def image_fetch(store: Store, guest_id: str, defaults: AgentDefaults) -> AgentRequest:
    """Fetch the image of the guest's flavor."""
    guest = _guest(store, guest_id)
    flavor_item = store.read(Key(keys.flavor(guest.flavor))).one()
    if flavor_item is None:
        raise NotFoundError("flavor", guest.flavor, field="flavor")
    image_id = FlavorRecord.from_json(flavor_item.value).image
    image_item = store.read(Key(keys.image(image_id))).one()
    if image_item is None:
        raise NotFoundError("image", image_id, field="image")
    return AgentRequest(
        _target(store, guest, defaults), "/images", image_request(ImageRecord.from_json(image_item.value))
    )


def _guest(store: Store, guest_id: str) -> GuestRecord:
    id = parse_id(guest_id)
    item = store.read(Key(keys.guest(id))).one()
    if item is None:
        raise NotFoundError("guest", id)
    return GuestRecord.from_json(item.value)


def _target(store: Store, guest: GuestRecord, defaults: AgentDefaults) -> AgentTarget:
    if not guest.hypervisor:
        raise ConflictError(f"guest {guest.id} has no hypervisor yet", reason="not_placed")
    reading = store.read(
        Key(keys.hypervisor(guest.hypervisor)), Key(keys.hypervisor_config(guest.hypervisor, AGENT_URL_CONFIG))
    )
    hypervisor, config = reading.one(0), reading.one(1)
    if hypervisor is None:
        raise NotFoundError("hypervisor", guest.hypervisor, field="hypervisor")
    record = HypervisorRecord.from_json(hypervisor.value)
    text = config.value.decode() if config else ""
    return AgentTarget(guest.hypervisor, agent_url(record, text, defaults.port, scheme=defaults.scheme))
