"""lochness token: what operators and programs are known by to a controller that requires tokens."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final

import typer

from lochness.cli.collection import add_delete, add_list
from lochness.cli.command import command, noun
from lochness.cli.output import Column, Format, plain, print_records, print_strings
from lochness.cli.session import Kind, Session, say
from lochness.errors import ValidationError

app = noun("token", "Tokens: who may ask the controller, and for what.")

_UNITS_S: Final = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Role(StrEnum):
    """What one may do: look only, or everything."""

    READ = "read"
    OPERATE = "operate"


COLUMNS = [
    Column("NAME", lambda token: plain(token.get("name"))),
    Column("ID", lambda token: plain(token.get("id"))),
    Column("ROLE", lambda token: plain(token.get("role"))),
    Column("CREATED", lambda token: plain(token.get("created_at"))),
    Column("EXPIRES", lambda token: plain(token.get("expires_at"))),
    Column("BY", lambda token: plain(token.get("created_by"))),
]

add_list(app, Kind.TOKEN, COLUMNS)


@command(app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Option("--name", help="Whose it is.", show_default=False)],
    role: Annotated[Role, typer.Option("--role", help="read: look only; operate: everything.")] = Role.READ,
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="SPAN", help="How long it lives: 90d, 12h ...; for ever without.")
    ] = "",
) -> None:
    """Make a token and print it: it is told this once, and kept nowhere.

    Example: lochness token create --name monitoring --role read --ttl 90d
    """
    made = session.client.create(
        Kind.TOKEN.path, {"name": name, "role": str(role), **({"ttl_s": span_s(ttl)} if ttl else {})}
    )
    if session.form is Format.TABLE:
        say(f"the token of {name}, id {made.get('id')}; it is not told again:")
        print_strings([str(made.get("token", ""))], session.form)
    else:
        print_records([made], session.form)


def span_s(text: str) -> int:
    """A span such as 90d in seconds. Raises ValidationError."""
    found = re.fullmatch(r"([0-9]{1,9})\s*(s|min|h|d|w|)", text.strip())
    if found is None or int(found[1]) == 0:
        raise ValidationError(f"a span is a number and s, min, h, d or w, such as 90d; got {text!r}", field="ttl")
    return int(found[1]) * _UNITS_S[found[2]]


add_delete(app, Kind.TOKEN, "Revoke tokens: who has one is refused from now on.", "token delete monitoring")
