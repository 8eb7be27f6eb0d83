"""How is a collection of records served: list, create, read, change, remove?

Invariants:
1. A request that is refused has changed nothing.
2. PATCH changes exactly the fields it names, whatever else changes at the same time: it is applied anew to a record
   that changed meanwhile, at most `CHANGE_ATTEMPTS_MAX` times.
3. Fields that are not known are ignored; the id never changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
from litestar import Request, Router, delete, get, patch, post
from litestar.params import FromPath, RawBody
from litestar.types import ControllerRouterHandler

from lochness.context import Context
from lochness.entities.stored import Stored
from lochness.errors import ConflictError, ValidationError
from lochness.ids import parse_id
from lochness.model.record import JSONObject, Record, decode_object
from lochness_controller.api.answers import JSONLine
from lochness_controller.api.documents import answers, listing, takes
from lochness_controller.api.fresh_ids import fresh_id, is_taken_over
from lochness_controller.api.given import GivenContext, GivenMirror
from lochness_controller.api.lists import Listed, answer_list, parse_query
from lochness_controller.api.noted import note
from lochness_controller.api.picture import Picture
from lochness_controller.api.preconditions import Precondition, etag

CHANGE_ATTEMPTS_MAX: Final = 5

AnyRequest = Request[Any, Any, Any]

Entity = TypeVar("Entity", bound=Any)
Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True)
class Collection(Generic[Entity]):
    """One kind of record and how it is handled. The functions take a Context.

    `record` is its record class, `create`, `change` and `remove` do their work completely or raise.
    """

    path: str
    record: type[Record]
    each: Callable[[Context], Iterable[Entity]]
    fetch: Callable[[Context, str], Entity]
    create: Callable[[Context, JSONObject], Entity]
    change: Callable[[Entity, JSONObject, Precondition], None]
    remove: Callable[[Entity], None]
    shown: Callable[[Entity], bytes] = lambda entity: entity.to_json()
    shown_all: Callable[[Picture], bytes] | None = None
    """The whole list; None: each as `shown` has it."""
    shown_each: Callable[[Picture], list[Listed]] | None = None
    """The list's records one by one, where `shown_all` is given."""
    more_fields: tuple[str, ...] = ()
    """What `shown` adds to the record's fields."""
    place_of: Callable[[str], Any] = str
    """A record's place in the list, from its identity as text."""
    shown_one: Callable[[Picture, str], tuple[bytes, int] | None] | None = None
    """One record and its revision; None: as `shown` has it."""


def known_fields(kind: type[Record], body: bytes) -> JSONObject:
    """The fields of `body`, a JSON object, that `kind` has. Raises ValidationError."""
    names = field_names(kind)
    return {name: value for name, value in decode_object(body).items() if name in names}


@functools.cache
def field_names(kind: type[Record]) -> frozenset[str]:
    """The JSON names of the record's fields. msgspec evaluates the annotations each time it is asked: 0.5 ms."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def apply(record: Any, changes: JSONObject) -> None:
    """Set exactly the fields in `changes` on `record`. Raises ValidationError and then has changed nothing."""
    fields = record.to_fields()
    if "id" in changes and isinstance(changes["id"], str) and parse_id(changes["id"]) != fields["id"]:
        raise ValidationError(f"id can not be changed: it is {fields['id']}, got {changes['id']!r}", field="id")
    patched = record.patched(changes)
    for name in changes:
        setattr(record, name, getattr(patched, name))


def given_id(fields: JSONObject) -> str:
    """The id that a new record is to have, "" where none is given. Raises ValidationError."""
    given = fields.get("id", "")
    if not isinstance(given, str):
        raise ValidationError("id must be a string", field="id")
    return parse_id(given) if given else ""


def fill(blank: Any, fields: JSONObject) -> None:
    """Make a new record of `blank` and `fields`. Without an id it keeps the fresh one. Raises ValidationError."""
    if given := given_id(fields):
        blank.id = given
    apply(blank, {name: value for name, value in fields.items() if name != "id"})


def create_from(blank: Any, fields: JSONObject) -> Any:
    """A new record of `blank` and `fields`, saved. Raises ValidationError, ConflictError when it exists already."""
    fill(blank, fields)
    blank.save()
    return blank


def change_and_save(
    record: Any, changes: JSONObject, precondition: Precondition, resolve: Callable[[], JSONObject] | None = None
) -> None:
    """Apply `changes` and save, also when `record` changed since it was read, unless `precondition` forbids that.

    `resolve` answers the changes for `record` as it is then, where they depend on that.
    """
    for attempt in range(1, CHANGE_ATTEMPTS_MAX + 1):
        precondition.check(f"{record.KIND} {record.identity}", record.revision)
        apply(record, resolve() if resolve else changes)
        try:
            record.save()
        except ConflictError:
            if attempt == CHANGE_ATTEMPTS_MAX:
                raise
            record.refresh()
        else:
            return


def decoded(body: bytes, kind: type[Decoded], what: str) -> Decoded:
    """The body as JSON of this kind, `what` in words. Raises ValidationError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"expected {what}: {error}") from error


def tell(action: str, record: Stored | Record) -> None:
    """Say in the request's entry in the journal that it has changed something."""
    id = record.identity if isinstance(record, Stored) else getattr(record, "id", "")
    note(action=action, kind=type(record).__name__, id=id)


def collection_router(collection: Collection[Any], *more: ControllerRouterHandler) -> Router:
    """The routes of a collection; `more` are handlers below its path."""
    kind = collection.record

    fields = field_names(kind) | set(collection.more_fields)

    @get("/", sync_to_thread=True, responses=answers(list[kind]), operation_class=listing(fields))  # type: ignore[valid-type]  # described, not checked
    def list_all(context: GivenContext, mirror: GivenMirror, request: AnyRequest) -> JSONLine:
        query = parse_query(request.query_params.multi_items(), fields)
        if collection.shown_all is None or collection.shown_each is None:
            records = [
                (collection.place_of(entity.identity), collection.shown(entity)) for entity in collection.each(context)
            ]
        elif query.is_whole:
            return JSONLine(collection.shown_all(mirror.current()))
        else:
            records = collection.shown_each(mirror.current())
        return answer_list(collection.path, query, records, place_of=collection.place_of)

    @post("/", sync_to_thread=True, responses=answers(kind, 201, 404, 409), operation_class=takes(kind))
    def create(context: GivenContext, body: RawBody) -> JSONLine:
        given = known_fields(kind, body)
        if "id" in fields and not given.get("id", ""):
            given["id"] = fresh_id("record")
        try:
            entity = collection.create(context, given)
        except ConflictError as error:
            if not (error.reason == "already_exists" and is_taken_over()):
                raise
            return shown(collection.fetch(context, given["id"]), 201)  # made at the first attempt
        tell("created", entity)
        return shown(entity, 201)

    @get("/{id:str}", sync_to_thread=True, responses=answers(kind, 200, 404))
    def show(context: GivenContext, mirror: GivenMirror, id: FromPath[str]) -> JSONLine:
        if collection.shown_one is not None:
            found = collection.shown_one(mirror.current(), parse_id(id))
            if found is not None:
                return JSONLine(found[0], headers=etag(found[1]))
        return shown(collection.fetch(context, id))

    @patch(
        "/{id:str}",
        sync_to_thread=True,
        responses=answers(kind, 200, 404, 409, 412),
        operation_class=takes(kind),
        has_revision=True,
    )
    def change(context: GivenContext, request: AnyRequest, id: FromPath[str], body: RawBody) -> JSONLine:
        changes = known_fields(kind, body)
        entity = collection.fetch(context, id)
        collection.change(entity, changes, Precondition.of(request))
        tell("changed", entity)
        return shown(entity)

    @delete(
        "/{id:str}",
        sync_to_thread=True,
        status_code=200,
        responses=answers(kind, 200, 404, 409, 412),
        has_revision=True,
    )
    def remove(context: GivenContext, request: AnyRequest, id: FromPath[str]) -> JSONLine:
        entity = collection.fetch(context, id)
        Precondition.of(request).check(f"{entity.KIND} {entity.identity}", entity.revision)
        collection.remove(entity)
        tell("removed", entity)
        return JSONLine(collection.shown(entity))

    def shown(entity: Any, status_code: int = 200) -> JSONLine:
        return JSONLine(collection.shown(entity), status_code=status_code, headers=etag(entity.revision))

    handlers: list[ControllerRouterHandler] = [list_all, create, show, change, remove, *more]
    return Router(path=collection.path, route_handlers=handlers)
