"""Which arguments and options do several commands share, and how is KEY=VALUE read?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from lochness.errors import ValidationError
from lochness.ids import parse_id

Word = Annotated[str, typer.Argument(metavar="ID|NAME", show_default=False)]
Words = Annotated[
    list[str], typer.Argument(metavar="ID|NAME...", help="'-' reads them from standard input.", show_default=False)
]
Pairs = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", show_default=False)]

IdOption = Annotated[str, typer.Option("--id", help="Its id, a UUID; a new one by default.", show_default=False)]
DescriptionOption = Annotated[str | None, typer.Option("--description", show_default=False)]
NameOption = Annotated[str | None, typer.Option("--name", help="Its name, kept in the metadata.", show_default=False)]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="May be given several times.", show_default=False),
]
WaitOption = Annotated[bool, typer.Option("--wait", "-w", help="Follow the job to its end.", show_default=False)]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="The limit of --wait.")]

WAIT_LIMIT_S: Final = 600.0


def pairs(words: Sequence[str] | None, *, what: str) -> dict[str, str]:
    """KEY=VALUE words as a dict; VALUE may be empty. Raises ValidationError."""
    result: dict[str, str] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValidationError(f"{what} must be KEY=VALUE, got {word!r}", field=what)
        result[key] = value
    return result


def metadata_of(name: str | None, words: Sequence[str] | None) -> dict[str, str]:
    """The metadata that --name and --metadata make."""
    return {**({"name": name} if name else {}), **pairs(words, what="metadata")}


def new_record(id: str, name: str | None, metadata: Sequence[str] | None, **given: Any) -> dict[str, Any]:
    """The body of a create: what was given, nothing else."""
    record: dict[str, Any] = {"id": parse_id(id)} if id else {}
    if words := metadata_of(name, metadata):
        record["metadata"] = words
    return record | {field: value for field, value in given.items() if value not in (None, "")}
