"""VLANs and VLAN groups in the store: a link between the two stands on both sides or on none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from lochness import keys
from lochness.entities.stored import Stored
from lochness.errors import ConflictError, NotFoundError
from lochness.ids import parse_id
from lochness.model.vlan import VLANGroupRecord, VLANRecord, parse_tag
from lochness.store.protocol import KeyUnchanged, Prefix, PrefixUnchanged
from lochness.transactions import Link, Transaction, destroy_object, link_objects, unlink_objects

#: How many links one transaction changes at most: two operations each, below etcd's limit of 128.
LINKS_PER_TRANSACTION: Final = 60


class VLAN(Stored, VLANRecord):
    """A VLAN. Its tag is its identity; only the description changes."""

    KIND = "vlan"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.vlan(id)

    @property
    def identity(self) -> str:
        return str(self.tag)

    def vlangroups(self) -> list[str]:
        """The ids of the groups that it is in, sorted."""
        return _linked(self, keys.vlan_vlangroups(self.identity))[0]

    def set_vlangroups(self, group_ids: Iterable[str]) -> None:
        """Be in exactly these groups. Raises NotFoundError naming a group that does not exist, ConflictError."""
        wanted = {parse_id(id, field="vlangroup") for id in group_ids}
        _set_links(
            self, keys.vlan_vlangroups(self.identity), wanted, lambda group: _link(self.identity, group), "vlangroup"
        )

    def destroy(self) -> None:
        """Take it out of its groups and remove it, in one transaction (of many groups, all but 60 before that).

        Raises ConflictError when it, or what it is in, changed meanwhile.
        """
        _destroy(
            self,
            keys.vlan_prefix(self.identity),
            keys.vlan_vlangroups(self.identity),
            lambda group: _link(self.identity, group),
        )


class VLANGroup(Stored, VLANGroupRecord):
    """A set of VLANs that a guest's interface gets as one unit."""

    KIND = "vlangroup"

    @classmethod
    def key_of(cls, id: str) -> str:
        return keys.vlangroup(id)

    def vlans(self) -> list[int]:
        """The tags in it, in order."""
        return sorted(int(tag) for tag in _linked(self, keys.vlangroup_vlans(self.id))[0])

    def add_vlan(self, vlan: VLAN) -> None:
        """Put the VLAN in, both sides in one transaction; no error when it is in already. Raises NotFoundError."""
        _commit_links(self, link_objects(_link(str(vlan.tag), self.id)), "vlan")

    def remove_vlan(self, vlan: VLAN) -> None:
        """Take the VLAN out, both sides in one transaction; no error when it is not in."""
        unlink_objects(_link(str(vlan.tag), self.id)).commit(self.context.store)

    def set_vlans(self, tags: Iterable[int]) -> None:
        """Hold exactly these tags. Raises NotFoundError naming a VLAN that does not exist, ConflictError."""
        wanted = {str(parse_tag(tag)) for tag in tags}
        _set_links(self, keys.vlangroup_vlans(self.id), wanted, lambda tag: _link(tag, self.id), "vlan")

    def destroy(self) -> None:
        """Take its VLANs out and remove it, in one transaction (of many VLANs, all but 60 before that).

        Guests that name it keep its id. Raises ConflictError when it, or what is in it, changed meanwhile.
        """
        _destroy(self, keys.vlangroup_prefix(self.id), keys.vlangroup_vlans(self.id), lambda tag: _link(tag, self.id))


def _link(tag: str, group_id: str) -> Link:
    return Link(
        objects=(keys.vlan(tag), keys.vlangroup(group_id)),
        sides=(keys.vlan_vlangroup(tag, group_id), keys.vlangroup_vlan(group_id, tag)),
    )


def _linked(stored: Stored, links: str) -> tuple[list[str], int]:
    """The ends of the links under the prefix `links`, and the revision at which they were these."""
    reading = stored.context.store.read(Prefix(links, keys_only=True))
    return [keys.last_part(item.key) for item in reading.ranges[0]], reading.revision


def _set_links(stored: Stored, links: str, wanted: set[str], link: Callable[[str], Link], other: str) -> None:
    before, revision = _linked(stored, links)
    changes = [link_objects(link(end)) for end in sorted(wanted - set(before))]
    changes += [unlink_objects(link(end)) for end in sorted(set(before) - wanted)]
    for start in range(0, len(changes), LINKS_PER_TRANSACTION):
        guard = Transaction((PrefixUnchanged(links, revision),), ())
        revision = _commit_links(stored, sum(changes[start : start + LINKS_PER_TRANSACTION], guard), other)


def _destroy(stored: Stored, prefix: str, links: str, link: Callable[[str], Link]) -> None:
    ends, revision = _linked(stored, links)
    while len(ends) > LINKS_PER_TRANSACTION:
        chunk, ends = ends[:LINKS_PER_TRANSACTION], ends[LINKS_PER_TRANSACTION:]
        sum((unlink_objects(link(end)) for end in chunk), Transaction((), ())).commit(stored.context.store)
    unchanged = KeyUnchanged(stored.key_of(stored.identity), stored.revision)
    guard = Transaction((unchanged, PrefixUnchanged(links, revision)), ())
    stored.commit(guard + destroy_object(prefix, [link(end) for end in ends]))


def _commit_links(stored: Stored, transaction: Transaction, other: str) -> int:
    """Commit links; a missing end is a NotFoundError that names it."""
    try:
        return transaction.commit(stored.context.store)
    except ConflictError as error:
        missing = [key for key in error.keys if key.endswith("/metadata")]
        if not missing:
            raise
        id = keys.last_part(missing[0].removesuffix("/metadata"))
        kind = stored.KIND if id == stored.identity else other
        raise NotFoundError(kind, id, field=kind) from error
