"""Which part of a list does a client want? Filters and pages beside the plain full list.

    GET /guests?hypervisor=ID&status.state=running&metadata.name=web1&limit=100&after=ID

Invariants:
1. Without a query the list is whole.
2. A filter is on a field that the records have, and an object's on its members; any other name is refused, so that
   nobody takes a list for filtered that is not.
3. Pages follow the list's own order; `after` need not exist any more.

A page that is not the last has the header Link with rel="next", and each filtered or paged list X-Total-Count: how many
records there are without `limit` and `after`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from lochness.errors import ValidationError
from lochness.model.record import JSONObject
from lochness_controller.api.answers import JSONLine, array_of

LIMIT_MAX: Final = 100_000

#: A record's place in its list, and its JSON.
Listed = tuple[Any, bytes]


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for. `after` is a place in the list, None for its beginning; `filters` are names and texts."""

    filters: Mapping[str, str]
    limit: int | None
    after: str | None

    @property
    def is_whole(self) -> bool:
        return not self.filters and self.limit is None and self.after is None


def parse_query(items: Iterable[tuple[str, str]], fields: frozenset[str]) -> Query:
    """The query of a list of records with these `fields`. Raises ValidationError naming what is wrong."""
    given: dict[str, str] = {}
    for name, value in items:
        if name in given:
            raise ValidationError(f"{name} is given twice", field=name)
        given[name] = value
    limit, after = given.pop("limit", None), given.pop("after", None)
    if limit is not None and not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= LIMIT_MAX):
        raise ValidationError(f"limit must be 1 to {LIMIT_MAX}, got {limit!r}", field="limit")
    for name in given:
        if name.partition(".")[0] not in fields:
            known = ", ".join(sorted(fields))
            raise ValidationError(f"a list can not be filtered by {name}, but by {known}, limit, after", field=name)
    return Query(given, int(limit) if limit is not None else None, after)


def answer_list(
    path: str, query: Query, records: Sequence[Listed], *, place_of: Callable[[str], Any] = str
) -> JSONLine:
    """The part of `records`, which are in their order, that `query` asks for. `place_of` reads `after`."""
    wanted = [listed for listed in records if _matches(listed[1], query.filters)] if query.filters else records
    total = len(wanted)
    if query.after is not None:
        start = place_of(query.after)
        wanted = [listed for listed in wanted if listed[0] > start]
    headers = {} if query.is_whole else {"X-Total-Count": str(total)}
    if query.limit is not None and len(wanted) > query.limit:
        wanted = wanted[: query.limit]
        following = {**query.filters, "limit": str(query.limit), "after": str(wanted[-1][0])}
        headers["Link"] = f'<{path}?{urlencode(following)}>; rel="next"'
    return JSONLine(array_of(record for _, record in wanted), headers=headers)


def _matches(record: bytes, filters: Mapping[str, str]) -> bool:
    fields = msgspec.json.decode(record)
    return all(_text(_member(fields, name)) == value for name, value in filters.items())


def _member(fields: JSONObject, name: str) -> Any:
    """The field `name`; of an object with dots the member, whose own name may have dots."""
    if name in fields:
        return fields[name]
    first, _, rest = name.partition(".")
    inner = fields.get(first)
    return _member(inner, rest) if isinstance(inner, dict) and rest else None


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None
