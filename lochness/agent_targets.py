"""Which agent is asked, and for what? Lookups (lochness.store.lookup) of what records say now.

Every lookup raises NotFoundError (guest, hypervisor, flavor, subnet or image), ConflictError (reason "not_placed"),
ValidationError (no address), UnavailableError.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from lochness.store.lookup import Lookup
from lochness.store.protocol import Key, KeyValue, Prefix


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


def target_of(guest_id: str, defaults: AgentDefaults) -> Lookup[AgentTarget]:
    """The agent of the guest's hypervisor."""
    guest = yield from _guest(guest_id)
    reading = yield _target_keys(guest)
    return _target(guest, reading.ranges, defaults)


def creation(guest_id: str, defaults: AgentDefaults) -> Lookup[AgentRequest]:
    """Create the guest."""
    guest = yield from _guest(guest_id)
    vlans_at = Prefix(keys.vlangroup_vlans(guest.vlangroup or "none"))
    reading = yield (
        Key(keys.flavor(guest.flavor)), Key(keys.subnet(guest.subnet or "none")), vlans_at, *_target_keys(guest),
    )  # fmt: skip
    flavor_item, subnet_item = reading.one(0), reading.one(1)
    vlans = sorted(int(keys.last_part(item.key)) for item in reading.ranges[2]) if guest.vlangroup else []
    if flavor_item is None:
        raise NotFoundError("flavor", guest.flavor, field="flavor")
    target = _target(guest, reading.ranges[3:], defaults)
    if subnet_item is None:
        raise NotFoundError("subnet", guest.subnet, field="subnet")
    flavor, subnet = FlavorRecord.from_json(flavor_item.value), SubnetRecord.from_json(subnet_item.value)
    return AgentRequest(target, "/guests", guest_request(guest, flavor, subnet, vlans))


def action(guest_id: str, name: str, defaults: AgentDefaults) -> Lookup[AgentRequest]:
    """Do `name` ("delete", "reboot" ...) with the guest."""
    target = yield from target_of(guest_id, defaults)
    return AgentRequest(target, f"/guests/{parse_id(guest_id)}/{name}")


def image_fetch(guest_id: str, defaults: AgentDefaults) -> Lookup[AgentRequest]:
    """Fetch the image of the guest's flavor."""
    guest = yield from _guest(guest_id)
    reading = yield (Key(keys.flavor(guest.flavor)), *_target_keys(guest))
    flavor_item = reading.one(0)
    if flavor_item is None:
        raise NotFoundError("flavor", guest.flavor, field="flavor")
    image_id = FlavorRecord.from_json(flavor_item.value).image
    image_item = (yield (Key(keys.image(image_id)),)).one()
    if image_item is None:
        raise NotFoundError("image", image_id, field="image")
    target = _target(guest, reading.ranges[1:], defaults)
    return AgentRequest(target, "/images", image_request(ImageRecord.from_json(image_item.value)))


def _guest(guest_id: str) -> Lookup[GuestRecord]:
    id = parse_id(guest_id)
    item = (yield (Key(keys.guest(id)),)).one()
    if item is None:
        raise NotFoundError("guest", id)
    return GuestRecord.from_json(item.value)


def _target_keys(guest: GuestRecord) -> tuple[Key, Key]:
    """What `_target` wants read. Raises ConflictError."""
    if not guest.hypervisor:
        raise ConflictError(f"guest {guest.id} has no hypervisor yet", reason="not_placed")
    return Key(keys.hypervisor(guest.hypervisor)), Key(keys.hypervisor_config(guest.hypervisor, AGENT_URL_CONFIG))


def _target(guest: GuestRecord, ranges: Sequence[Sequence[KeyValue]], defaults: AgentDefaults) -> AgentTarget:
    (hypervisors, configs), id = ranges, guest.hypervisor
    if not hypervisors:
        raise NotFoundError("hypervisor", id, field="hypervisor")
    record = HypervisorRecord.from_json(hypervisors[0].value)
    text = configs[0].value.decode() if configs else ""
    return AgentTarget(id, agent_url(record, text, defaults.port, scheme=defaults.scheme))
