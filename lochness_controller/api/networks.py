"""Networks and subnets: /networks, /networks/{id}/subnets, /subnets, /subnets/{id}/addresses.

Invariants:
1. The link between a network and a subnet is written on both sides, in one transaction.
2. A subnet that guests have addresses of is not removed; one that is removed leaves no mapping on a hypervisor.
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Router, delete, get, patch, put
from litestar.params import FromPath, RawBody

from lochness import keys
from lochness.context import Context
from lochness.entities.subnet import Subnet
from lochness.errors import ConflictError, NotFoundError
from lochness.ids import parse_id
from lochness.model.network import NetworkRecord
from lochness.model.record import JSONObject
from lochness.model.subnet import SubnetRecord
from lochness.store.protocol import Delete, Key, Prefix, PrefixUnchanged
from lochness.transactions import Transaction, delete_subnet, link_subnet, unlink_subnet
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.documents import answers, takes_list
from lochness_controller.api.given import GivenContext
from lochness_controller.api.preconditions import Precondition
from lochness_controller.api.records import (
    CHANGE_ATTEMPTS_MAX,
    Collection,
    apply,
    change_and_save,
    collection_router,
    create_from,
    decoded,
    fill,
    tell,
)

#: A subnet on more hypervisors than fit into one transaction is taken off them first.
_MAPPINGS_MAX: Final = 100


def routers() -> list[Router]:
    """The routes of networks and subnets."""
    return [
        collection_router(_NETWORKS, list_subnets, link_subnets, link_one_subnet, unlink_one_subnet),
        collection_router(_SUBNETS, list_addresses),
    ]


@get("/{id:str}/subnets", sync_to_thread=True, responses=answers(list[str], 200, 404))
def list_subnets(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """The ids of the network's subnets."""
    return JSONLine(context.network(id).subnets())


@patch(
    "/{id:str}/subnets",
    sync_to_thread=True,
    responses=answers(list[str], 200, 404, 409),
    operation_class=takes_list("string"),
)
def link_subnets(context: GivenContext, id: FromPath[str], body: RawBody) -> JSONLine:
    """Add the subnets whose ids are in the array; answers the ids of all."""
    ids = decoded(body, list[str], "an array of subnet ids")
    network = context.network(id)
    for subnet in [context.subnet(parse_id(each, field="subnet")) for each in ids]:
        network.add_subnet(subnet)
    tell("subnets linked", network)
    return JSONLine(network.subnets())


@put("/{id:str}/subnets/{subnet:str}", sync_to_thread=True, responses=answers(list[str], 200, 404, 409))
def link_one_subnet(context: GivenContext, id: FromPath[str], subnet: FromPath[str]) -> JSONLine:
    """Add a subnet; answers the ids of all."""
    network = context.network(id)
    network.add_subnet(context.subnet(subnet))
    tell("subnets linked", network)
    return JSONLine(network.subnets())


@delete(
    "/{id:str}/subnets/{subnet:str}",
    sync_to_thread=True,
    status_code=200,
    responses=answers(list[str], 200, 404, 409),
)
def unlink_one_subnet(context: GivenContext, id: FromPath[str], subnet: FromPath[str]) -> JSONLine:
    """Take a subnet out; answers the ids of those left. Guests keep the addresses they have."""
    network = context.network(id)
    linked = context.subnet(subnet)
    if linked.network != network.id:
        raise NotFoundError("subnet", linked.id, field="subnet")
    network.remove_subnet(linked)
    tell("subnets unlinked", network)
    return JSONLine(network.subnets())


@get("/{id:str}/addresses", sync_to_thread=True, responses=answers(dict[str, str], 200, 404))
def list_addresses(context: GivenContext, id: FromPath[str]) -> JSONLine:
    """The addresses in use, each with the id of its guest."""
    return JSONLine(context.subnet(id).addresses())


def _create_subnet(context: Context, fields: JSONObject) -> Subnet:
    """A subnet; one that names a network is linked to it in the same transaction."""
    network_id = fields.get("network") or ""
    if not network_id:
        subnet: Subnet = create_from(context.new_subnet(), fields)
        return subnet
    subnet = context.new_subnet()
    fill(subnet, fields)
    subnet.validate()
    network = context.network(_required_network(subnet))
    try:
        revision = subnet.commit(link_subnet(network.id, subnet.id, subnet.to_json(), 0))
    except ConflictError as error:
        if keys.network(network.id) in error.keys:
            raise NotFoundError("network", network.id, field="network") from error
        raise
    subnet.adopt_saved(subnet, revision)
    return subnet


def _change_subnet(subnet: Subnet, changes: JSONObject, precondition: Precondition) -> None:
    """Change fields; another network means other links."""
    if "network" not in changes:
        change_and_save(subnet, changes, precondition)
        return
    for attempt in range(1, CHANGE_ATTEMPTS_MAX + 1):
        precondition.check(f"subnet {subnet.id}", subnet.revision)
        before = subnet.network
        apply(subnet, changes)
        subnet.validate()
        try:
            revision = subnet.commit(_moved(subnet, before))
        except ConflictError as error:
            if keys.network(subnet.network) in error.keys:
                raise NotFoundError("network", subnet.network, field="network") from error
            if attempt == CHANGE_ATTEMPTS_MAX:
                raise
            subnet.refresh()
        else:
            subnet.adopt_saved(subnet, revision)
            return


def _moved(subnet: Subnet, before: str) -> Transaction:
    """The transaction that saves `subnet`, which was in the network `before`, with the links it has now."""
    if not subnet.network:
        return unlink_subnet(before, subnet.id, subnet.to_json(), subnet.revision)
    link = link_subnet(subnet.network, subnet.id, subnet.to_json(), subnet.revision)
    if before in ("", subnet.network):
        return link
    return link + Transaction((), (Delete(keys.network_subnet(before, subnet.id)),))


def _required_network(subnet: Subnet) -> str:
    """The network's id, given that it exists."""
    if subnet.context.store.read(Key(keys.network(subnet.network))).one() is None:
        raise NotFoundError("network", subnet.network, field="network")
    return subnet.network


def _remove_subnet(subnet: Subnet) -> None:
    """Remove an unused subnet, with its network's link and the hypervisors' mappings of it."""
    addresses = keys.subnet_addresses(subnet.id)
    reading = subnet.context.store.read(Prefix(addresses, keys_only=True), Prefix(keys.HYPERVISOR_PATH, keys_only=True))
    used = len(reading.ranges[0])
    if used:
        text = f"subnet {subnet.id} still has {used} address(es) in use"
        raise ConflictError(text, keys=(addresses,), reason="has_guests")
    mapping = f"subnets/{subnet.id}"
    mappings = [item.key for item in reading.ranges[1] if keys.object_id(item.key, keys.HYPERVISOR_PATH)[1] == mapping]
    if len(mappings) > _MAPPINGS_MAX:
        text = f"subnet {subnet.id} is mapped on {len(mappings)} hypervisors: remove these mappings first"
        raise ConflictError(text, reason="still_mapped")
    unused = Transaction((PrefixUnchanged(addresses, reading.revision),), tuple(Delete(key) for key in mappings))
    subnet.commit(delete_subnet(subnet.network, subnet.id, subnet.revision) + unused)


def _destroy(entity: Any) -> None:
    entity.destroy()


_NETWORKS: Collection[Any] = Collection(
    path="/networks",
    record=NetworkRecord,
    each=Context.networks,
    fetch=Context.network,
    create=lambda context, fields: create_from(context.new_network(), fields),
    change=change_and_save,
    remove=_destroy,
)

_SUBNETS: Collection[Any] = Collection(
    path="/subnets",
    record=SubnetRecord,
    each=Context.subnets,
    fetch=Context.subnet,
    create=_create_subnet,
    change=_change_subnet,
    remove=_remove_subnet,
)
