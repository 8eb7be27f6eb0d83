"""What do all nouns have in common? list, show, create, modify, delete, by ids, names or JSON objects.

1. A word that begins with "{" is a spec, a JSON object; what it does not say, the options say for it.
2. Fields that refer to other objects may hold their names.
3. One that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lochness.cli.arguments import Words, metadata_of
from lochness.cli.command import command
from lochness.cli.output import Column, print_list, print_records
from lochness.cli.session import Kind, Session, expanded, identity_of
from lochness.errors import ConflictError, ValidationError

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

Specs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SPEC...", help="JSON objects; '-' reads one a line from standard input.", show_default=False
    ),
]
Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="ID|NAME|SPEC...", help="SPEC: a JSON object with the id. '-' reads one a line.", show_default=False
    ),
]

_PRECONDITION_FAILED: Final = 412

#: Fields that hold the id of another object, by the kind that has them.
REFERENCES: Final[Mapping[Kind, Mapping[str, Kind]]] = {
    Kind.GUEST: {
        "flavor": Kind.FLAVOR, "network": Kind.NETWORK, "fwgroup": Kind.FWGROUP, "vlangroup": Kind.VLANGROUP,
    },
    Kind.FLAVOR: {"image": Kind.IMAGE},
    Kind.SUBNET: {"network": Kind.NETWORK},
}  # fmt: skip


def add_list(app: typer.Typer, kind: Kind, columns: Sequence[Column], *, noun: str = "") -> None:
    """The verb list, with a table of these columns."""

    def list_all(session: Session) -> None:
        print_list(session.records(kind), columns, session.form)

    list_all.__doc__ = f"List the {kind.plural}.\n\n    Example: lochness {noun or kind} list\n    "
    command(app, "list")(list_all)


def add_show(
    app: typer.Typer, kind: Kind, example: str, more: Callable[[Session, str], JSONObject] | None = None, text: str = ""
) -> None:
    """The verb show; `more` answers what is shown beside the record at a path."""

    def show(session: Session, ids: Words) -> None:
        def show_one(word: str) -> None:
            path = session.path_of(kind, word)
            record = session.client.record(path)
            print_records([{**record, **more(session, path)} if more else record], session.form)

        session.for_each(ids, show_one)

    show.__doc__ = f"Show {kind.plural} with all their fields{text}.\n\n    Example: lochness {example}\n    "
    command(app, "show")(show)


def add_delete(app: typer.Typer, kind: Kind, text: str, example: str) -> None:
    """The verb delete."""

    def delete(session: Session, ids: Words) -> None:
        def remove(word: str) -> None:
            print_records([session.client.delete(session.path_of(kind, word))], session.form)

        session.for_each(ids, remove)

    delete.__doc__ = f"{text}\n\n    Example: lochness {example}\n    "
    command(app, "delete")(delete)


def create_each(
    session: Session, kind: Kind, specs: Sequence[str] | None, given: JSONObject, *, needs: Sequence[str] = ()
) -> None:
    """Make an object of each spec, or one of what the options say, `given`. Prints each as stored."""

    def create(record: JSONObject) -> None:
        print_records([session.client.create(kind.path, resolved(session, kind, record))], session.form)

    for record in records_of(kind, specs, given, needs=needs):
        session.attempt(create, record)


def records_of(
    kind: Kind, specs: Sequence[str] | None, given: JSONObject, *, needs: Sequence[str] = ()
) -> list[JSONObject]:
    """The bodies of creates. Each needs these fields. Raises ValidationError before anything is sent."""
    records = [_merged(given, spec(word)) for word in expanded(specs)] if specs else [given]
    if len(records) > 1 and "id" in given:
        raise ValidationError("--id is for one object, not for several", field="id")
    for record in records:
        for name in needs:
            if record.get(name) in (None, ""):
                raise ValidationError(f"Missing option '--{name}' (see lochness {kind.noun} create --help)", field=name)
    return records


def _merged(given: JSONObject, spec: JSONObject) -> JSONObject:
    merged = {**given, **spec}
    if isinstance(given.get("metadata"), dict) and isinstance(spec.get("metadata"), dict):
        merged["metadata"] = {**given["metadata"], **spec["metadata"]}
    return merged


def spec(word: str) -> JSONObject:
    """A JSON object from the command line or a line of standard input. Raises ValidationError."""
    import msgspec

    try:
        found: JSONObject = msgspec.json.decode(word, type=dict[str, Any])
    except msgspec.DecodeError as error:
        text = word if len(word) <= 60 else f"{word[:60]}..."
        raise ValidationError(f"a spec must be a JSON object, got {text!r}: {error}", field="spec") from error
    return found


def resolved(session: Session, kind: Kind, record: JSONObject) -> JSONObject:
    """`record` with ids where it has names. Raises NotFoundError, ValidationError when a name is ambiguous."""
    found = dict(record)
    for name, other in REFERENCES.get(kind, {}).items():
        if isinstance(found.get(name), str) and found[name]:
            found[name] = session.id_of(other, found[name])
    return found


def modify_each(
    session: Session, kind: Kind, words: Sequence[str], name: str | None, metadata: Sequence[str] | None, **given: Any
) -> None:
    """Change each object as its spec says, or as the options do, None for what they leave. Prints each as it is then.

    Metadata of options is merged into what is there, KEY= takes one away; that of a spec takes the place of it all.
    """
    options = {field: value for field, value in given.items() if value is not None}
    changed_metadata = metadata_of(name, metadata)
    if name == "":
        changed_metadata["name"] = ""

    def modify(word: str) -> None:
        tag = ""
        if word.startswith("{"):
            changes = _merged(options, spec(word))
            id = changes.pop("id", changes.get("tag"))
            if id in (None, ""):
                raise ValidationError(f"a spec to modify by needs the id of a {kind}", field="id")
            path = session.path_of(kind, str(id))
        else:
            path, changes = session.path_of(kind, word), dict(options)
            if changed_metadata:
                record, tag = session.client.seen(path)
                merged = {**record.get("metadata", {}), **changed_metadata}
                changes["metadata"] = {key: value for key, value in merged.items() if value}
        print_records([modify_seen(session, path, resolved(session, kind, changes), tag)], session.form)

    targets = expanded(words)
    if not options and not changed_metadata and not all(word.startswith("{") for word in targets):
        raise ValidationError(f"nothing to change was given (see lochness {kind.noun} modify --help)", field="changes")
    for word in targets:
        session.attempt(modify, word)


def modify_seen(session: Session, path: str, changes: JSONObject, tag: str) -> JSONObject:
    """Change an object that was read with this tag, "" for any. Raises ConflictError when it is another one by now."""
    from lochness.api_connection import RefusedError

    try:
        return session.client.modify(path, changes, seen=tag)
    except RefusedError as error:
        if tag and error.code == _PRECONDITION_FAILED:
            raise ConflictError("somebody else has changed it meanwhile; nothing was done to it, look again") from error
        raise


def identities(records: Sequence[JSONObject]) -> list[str]:
    """Their ids."""
    return [identity_of(record) for record in records]
