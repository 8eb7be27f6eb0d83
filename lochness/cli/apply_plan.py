"""What must be made and changed for a cluster to be as a file says? Pure: the file and the objects in, changes out.

    [network.lan]                               [flavor.small]
    [subnet.lan-a]                              image = "debian12"
    network = "lan"                             memory = 1024
    cidr = "10.0.0.0/24"
    start = "10.0.0.10"                         [fwgroup.web]
    end = "10.0.0.99"                           rules = ["allow tcp 80-443", "allow tcp 22 from 10.0.0.0/8"]
    [image.debian12]                            [vlan.100]
    source = "https://..."                      [vlangroup.office]
                                                tags = [100, 101]

1. A table's name is the object's name; a VLAN's is its tag.
2. Fields that the file does not name, and objects that it does not name, are left alone. Nothing is ever deleted.
3. Planned again after it was carried out, nothing is left to do.
4. What the file says is checked as the controller checks it, before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from lochness.cli.collection import REFERENCES
from lochness.cli.fwrules import parsed_rule, rule_text
from lochness.cli.session import Kind, identity_of, matching_id, name_of
from lochness.errors import NotFoundError, ValidationError
from lochness.ids import is_id, parse_id
from lochness.model.flavor import FlavorRecord
from lochness.model.fwgroup import FWGroupRecord
from lochness.model.image import ImageRecord
from lochness.model.network import NetworkRecord
from lochness.model.record import JSONObject, Record
from lochness.model.subnet import SubnetRecord
from lochness.model.vlan import VLANGroupRecord, VLANRecord, parse_tag

#: In the order in which they are made: what is referred to comes first.
RECORDS: Final[Mapping[Kind, type[Record]]] = {
    Kind.NETWORK: NetworkRecord,
    Kind.SUBNET: SubnetRecord,
    Kind.IMAGE: ImageRecord,
    Kind.FLAVOR: FlavorRecord,
    Kind.FWGROUP: FWGroupRecord,
    Kind.VLAN: VLANRecord,
    Kind.VLANGROUP: VLANGroupRecord,
}

Observed = Mapping[Kind, Sequence[JSONObject]]


@dataclass(frozen=True, slots=True)
class Change:
    """One object to make (`is_new`) or to change. `fields` are sent, `before` holds what they are now.

    `tags` are what a VLAN group is to have, None when they are to stay; `tags_before` what it has.
    """

    kind: Kind
    name: str
    id: str
    is_new: bool
    fields: JSONObject
    before: JSONObject = field(default_factory=dict)
    tags: tuple[int, ...] | None = None
    tags_before: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        """Where it is, or will be, in the API."""
        return f"{self.kind.path}/{self.id}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes in their order, and how many objects of the file are as it says already."""

    changes: tuple[Change, ...]
    unchanged: int


def decide_changes(
    wanted: Mapping[str, Any], observed: Observed, tags_of: Mapping[str, Sequence[int]], new_id: Callable[[], str]
) -> Plan:
    """The plan. `tags_of` are the tags of the VLAN groups that are there, by id.

    Raises ValidationError for what the file must not say, NotFoundError for a reference to nothing.
    """
    tables = _tables(wanted)
    ids = {
        kind: {name: _existing_id(kind, name, observed) or _fresh_id(kind, name, new_id) for name in tables[kind]}
        for kind in tables
    }
    changes: list[Change] = []
    unchanged = 0
    for kind, named in tables.items():
        for name, table in named.items():
            with _told(kind, name):
                change = _change(kind, name, table, ids, observed, tags_of)
            if change is None:
                unchanged += 1
            else:
                changes.append(change)
    return Plan(tuple(changes), unchanged)


class _told:
    """Says of an error in the file where it stands."""

    def __init__(self, kind: Kind, name: str) -> None:
        self._place = f"{kind}.{name}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, ValidationError | NotFoundError):
            error.message = f"{self._place}: {error.message}"
        elif isinstance(error, msgspec.ValidationError):
            raise ValidationError(f"{self._place}: {error}", field=self._place) from error


def _tables(wanted: Mapping[str, Any]) -> dict[Kind, dict[str, JSONObject]]:
    known = {str(kind): kind for kind in RECORDS}
    for word in wanted:
        if word not in known:
            raise ValidationError(f"unknown kind {word!r}; known: {', '.join(known)}", field=word)
    tables: dict[Kind, dict[str, JSONObject]] = {kind: {} for kind in RECORDS}
    for word, named in wanted.items():
        if not isinstance(named, dict) or not all(isinstance(table, dict) for table in named.values()):
            raise ValidationError(f"{word} must hold tables such as [{word}.NAME]", field=word)
        tables[known[word]] = named
    return tables


def _existing_id(kind: Kind, name: str, observed: Observed) -> str:
    """The id of the object that has this name, "" for none. Raises ValidationError when there are several."""
    if kind is Kind.VLAN:
        tag = str(parse_tag(name))
        return tag if any(identity_of(record) == tag for record in observed[kind]) else ""
    try:
        return matching_id(kind, name, observed[kind])
    except NotFoundError:
        return ""


def _fresh_id(kind: Kind, name: str, new_id: Callable[[], str]) -> str:
    return str(parse_tag(name)) if kind is Kind.VLAN else new_id()


def _change(
    kind: Kind,
    name: str,
    table: JSONObject,
    ids: Mapping[Kind, Mapping[str, str]],
    observed: Observed,
    tags_of: Mapping[str, Sequence[int]],
) -> Change | None:
    id = ids[kind][name]
    now = next((record for record in observed[kind] if identity_of(record) == id), None)

    def id_of(other: Kind, word: str) -> str:
        if is_id(word):
            return parse_id(word)
        return ids[other].get(word) or matching_id(other, word, observed[other])

    given = _given(kind, name, table, id_of)
    tags = given.pop("tags", None)
    tags_before = tuple(sorted(tags_of.get(id, ())))
    record = RECORDS[kind]
    if kind is not Kind.VLAN:
        metadata = {**((now or {}).get("metadata") or {}), **given.get("metadata", {}), "name": name}
        given["metadata"] = {key: value for key, value in metadata.items() if value != ""}
    key = {"tag": int(id)} if kind is Kind.VLAN else {"id": id}
    whole = record.from_fields({**(now or {}), **given, **key})
    whole.validate()
    fields = {field: value for field, value in whole.to_fields().items() if field in given}
    before = record.from_fields(now).to_fields() if now is not None else {}
    is_tagged = tags is not None and tags != tags_before
    if now is None:
        return Change(kind, name, id, True, {**key, **fields}, tags=tags if is_tagged else None)
    changed = {field: value for field, value in fields.items() if before.get(field) != value}
    if not changed and not is_tagged:
        return None
    was = {field: before.get(field) for field in changed}
    return Change(kind, name, id, False, changed, was, tags if is_tagged else None, tags_before)


def _given(kind: Kind, name: str, table: JSONObject, id_of: Callable[[Kind, str], str]) -> JSONObject:
    """The fields of a table, ids in place of names."""
    known = {each.encode_name for each in msgspec.structs.fields(RECORDS[kind])} - {"id", "tag"}
    known |= {"tags"} if kind is Kind.VLANGROUP else set()
    if unknown := sorted(set(table) - known):
        raise ValidationError(f"unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}", field=unknown[0])
    given = dict(table)
    if isinstance(given.get("metadata", {}), dict) and given.get("metadata", {}).get("name", name) != name:
        raise ValidationError("metadata.name is the table's name and cannot be another", field="metadata")
    for field_name, other in REFERENCES.get(kind, {}).items():
        if isinstance(given.get(field_name), str) and given[field_name]:
            given[field_name] = id_of(other, given[field_name])
    if "rules" in given:
        given["rules"] = _rules(given["rules"], lambda word: id_of(Kind.FWGROUP, word))
    if "tags" in given:
        if not isinstance(given["tags"], list):
            raise ValidationError("tags must be a list of VLAN tags", field="tags")
        given["tags"] = tuple(sorted({parse_tag(tag) for tag in given["tags"]}))
    return given


def _rules(rules: Any, group_id: Callable[[str], str]) -> list[JSONObject]:
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ValidationError('rules must be a list of words such as "allow tcp 22 from 10.0.0.0/8"', field="rules")
    return [parsed_rule(rule, group_id) for rule in rules]


def difference(plan: Plan, names: Mapping[str, str]) -> list[str]:
    """The plan for people, a line each; `names` are what to call ids. Pure."""
    lines = []
    for change in plan.changes:
        words = [_field_text(change, name, names) for name in change.fields if name not in ("id", "tag")]
        words = [word for word in words if word]
        if change.tags is not None:
            before = "" if change.is_new else f"{_list_text(change.tags_before)} -> "
            words.append(f"tags {before}{_list_text(change.tags)}")
        sign = "+" if change.is_new else "~"
        lines.append(f"{sign} {change.kind} {change.name}" + (f": {'; '.join(words)}" if words else ""))
    lines.append(f"= {plan.unchanged} as they should be")
    return lines


def _list_text(values: Sequence[int]) -> str:
    return ",".join(str(value) for value in values) or "none"


def _field_text(change: Change, name: str, names: Mapping[str, str]) -> str:
    value = change.fields[name]
    if name == "metadata":
        value = {key: word for key, word in value.items() if key != "name"}
        if change.is_new and not value:
            return ""
    if change.is_new:
        return f"{name} {_value_text(value, names)}"
    before = change.before.get(name)
    if name == "metadata" and isinstance(before, dict):
        before = {key: word for key, word in before.items() if key != "name"}
    return f"{name} {_value_text(before, names)} -> {_value_text(value, names)}"


def _value_text(value: Any, names: Mapping[str, str]) -> str:
    if isinstance(value, list):
        return ", ".join(rule_text(each, names) if isinstance(each, dict) else str(each) for each in value) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key}={word}" for key, word in value.items()) or "none"
    return names.get(str(value), str(value)) if value not in ("", None) else "none"


def named(observed: Observed, plan: Plan) -> dict[str, str]:
    """What to call each id that is there or will be."""
    names = {identity_of(record): name_of(record) for records in observed.values() for record in records}
    return {id: name for id, name in names.items() if name} | {change.id: change.name for change in plan.changes}
