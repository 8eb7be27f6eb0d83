"""How is a collection of records served: list, create, read, change, remove?

Invariants:
1. A request that is refused has changed nothing.
2. PATCH changes exactly the fields it names, whatever else changes at the same time: it is applied anew to a record
   that changed meanwhile, at most `CHANGE_ATTEMPTS_MAX` times.
3. Fields that are not known are ignored; the id never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, RawBody
from litestar.types import ControllerRouterHandler

from lochness import events
from lochness.context import Context
from lochness.entities.stored import Stored
from lochness.errors import ConflictError, ValidationError
from lochness.ids import parse_id
from lochness.log import get_logger
from lochness.model.record import JSONObject, Record, decode_object
from lochness_controller.api.answers import JSONLine, array_of
from lochness_controller.api.documents import answers, takes
from lochness_controller.api.given import GivenContext, GivenMirror
from lochness_controller.api.picture import Picture

CHANGE_ATTEMPTS_MAX: Final = 5

Entity = TypeVar("Entity", bound=Any)
Decoded = TypeVar("Decoded")

_log = get_logger("api")


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
    change: Callable[[Entity, JSONObject], None]
    remove: Callable[[Entity], None]
    shown: Callable[[Entity], bytes] = lambda entity: entity.to_json()
    shown_all: Callable[[Picture], bytes] | None = None
    """The whole list; None: each as `shown` has it."""
    shown_one: Callable[[Picture, str], tuple[bytes, int] | None] | None = None
    """One record and its revision; None: as `shown` has it."""


def known_fields(kind: type[Record], body: bytes) -> JSONObject:
    """The fields of `body`, a JSON object, that `kind` has. Raises ValidationError."""
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    return {name: value for name, value in decode_object(body).items() if name in names}


def apply(record: Any, changes: JSONObject) -> None:
    """Set exactly the fields in `changes` on `record`. Raises ValidationError and then has changed nothing."""
    fields = record.to_fields()
    if "id" in changes and isinstance(changes["id"], str) and parse_id(changes["id"]) != fields["id"]:
        raise ValidationError(f"id can not be changed: it is {fields['id']}, got {changes['id']!r}", field="id")
    patched = record.patched(changes)
    for name in changes:
        setattr(record, name, getattr(patched, name))


def fill(blank: Any, fields: JSONObject) -> None:
    """Make a new record of `blank` and `fields`. Without an id it keeps the fresh one. Raises ValidationError."""
    given = fields.get("id", "")
    if not isinstance(given, str):
        raise ValidationError("id must be a string", field="id")
    if given:
        blank.id = parse_id(given)
    apply(blank, {name: value for name, value in fields.items() if name != "id"})


def create_from(blank: Any, fields: JSONObject) -> Any:
    """A new record of `blank` and `fields`, saved. Raises ValidationError, ConflictError when it exists already."""
    fill(blank, fields)
    blank.save()
    return blank


def change_and_save(record: Any, changes: JSONObject, resolve: Callable[[], JSONObject] | None = None) -> None:
    """Apply `changes` and save, also when `record` changed since it was read.

    `resolve` answers the changes for `record` as it is then, where they depend on that.
    """
    for attempt in range(1, CHANGE_ATTEMPTS_MAX + 1):
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
    """Log that an operator changed something."""
    id = record.identity if isinstance(record, Stored) else getattr(record, "id", "")
    _log.info(events.API_RECORD_CHANGED, action=action, kind=type(record).__name__, id=id)


def collection_router(collection: Collection[Any], *more: ControllerRouterHandler) -> Router:
    """The routes of a collection; `more` are handlers below its path."""
    kind = collection.record

    @get("/", sync_to_thread=True, responses=answers(list[kind]))  # type: ignore[valid-type]  # described, not checked
    def list_all(context: GivenContext, mirror: GivenMirror) -> JSONLine:
        if collection.shown_all is not None:
            return JSONLine(collection.shown_all(mirror.current()))
        return JSONLine(array_of(collection.shown(entity) for entity in collection.each(context)))

    @post("/", sync_to_thread=True, responses=answers(kind, 201, 404, 409), operation_class=takes(kind))
    def create(context: GivenContext, body: RawBody) -> JSONLine:
        entity = collection.create(context, known_fields(kind, body))
        tell("created", entity)
        return JSONLine(collection.shown(entity), status_code=201)

    @get("/{id:str}", sync_to_thread=True, responses=answers(kind, 200, 404))
    def show(context: GivenContext, mirror: GivenMirror, id: FromPath[str]) -> JSONLine:
        if collection.shown_one is not None:
            found = collection.shown_one(mirror.current(), parse_id(id))
            if found is not None:
                return JSONLine(found[0])
        return JSONLine(collection.shown(collection.fetch(context, id)))

    @patch("/{id:str}", sync_to_thread=True, responses=answers(kind, 200, 404, 409), operation_class=takes(kind))
    def change(context: GivenContext, id: FromPath[str], body: RawBody) -> JSONLine:
        changes = known_fields(kind, body)
        entity = collection.fetch(context, id)
        collection.change(entity, changes)
        tell("changed", entity)
        return JSONLine(collection.shown(entity))

    @delete("/{id:str}", sync_to_thread=True, status_code=200, responses=answers(kind, 200, 404, 409))
    def remove(context: GivenContext, id: FromPath[str]) -> JSONLine:
        entity = collection.fetch(context, id)
        collection.remove(entity)
        tell("removed", entity)
        return JSONLine(collection.shown(entity))

    handlers: list[ControllerRouterHandler] = [list_all, create, show, change, remove, *more]
    return Router(path=collection.path, route_handlers=handlers)
