"""lochness context: the controllers that are known by a name."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from lochness.cli.command import command, noun
from lochness.cli.contexts import Connection, Contexts, checked_name, read_contexts, write_contexts
from lochness.cli.output import Column, Format, plain, print_list, print_records
from lochness.cli.session import Session, say
from lochness.errors import NotFoundError, ValidationError
from lochness.model.record import JSONObject

app = noun("context", "Contexts: controllers known by a name, with their token and CA.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]

COLUMNS = [
    Column("CURRENT", lambda context: "*" if context.get("current") else ""),
    Column("NAME", lambda context: plain(context.get("id"))),
    Column("SERVER", lambda context: plain(context.get("server"))),
    Column("TOKEN", lambda context: plain(context.get("token"))),
    Column("CA", lambda context: plain(context.get("ca"))),
]


def _record(context: Connection, known: Contexts) -> JSONObject:
    """What is shown of a context: never its token."""
    token = context.token if context.token.startswith("@") else "set" if context.token else ""
    return {
        "id": context.context,
        "current": bool(context.context) and context.context == known.current,
        "server": context.server,
        "token": token,
        "ca": context.ca,
    }


@command(app, "list")
def list_contexts(session: Session) -> None:
    """List the contexts; the current one is marked.

    Example: lochness context list
    """
    known = read_contexts(session.config_file)
    print_list([_record(each, known) for _, each in sorted(known.contexts.items())], COLUMNS, session.form)


@command(app, "show")
def show(session: Session) -> None:
    """Show the controller that a command would talk to now: flags, environment and context taken together.

    Example: lochness context show
    """
    record = _record(session.connection, read_contexts(session.config_file))
    print_records([record], session.form)


@command(app, "use")
def use(session: Session, name: NameArgument) -> None:
    """Make a context the current one: commands without --context and --server talk to its controller.

    Example: lochness context use prod
    """
    known = read_contexts(session.config_file)
    known.current = known.named(name).context
    write_contexts(known, session.config_file)


@command(app, "set")
def set_context(
    session: Session,
    name: NameArgument,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="The controller.", show_default=False)
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", metavar="TOKEN", help="@FILE: keep it there; -: read it from standard input.", show_default=False
        ),
    ] = None,
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="FILE", help="PEM certificates to trust.", show_default=False)
    ] = None,
) -> None:
    """Make a context, or change what is given of it; "" takes a token or CA away. The first one becomes current.

    Example: lochness context set prod --server https://10.0.0.2:17000 --token @/run/keys/lochness
    """
    from lochness.api_connection import checked_server, tls_context

    known = read_contexts(session.config_file)
    before = known.contexts.get(checked_name(name))
    if before is None and server is None:
        raise ValidationError(f"the context {name!r} is new and needs --server", field="server")
    new = before or Connection(context=name)
    if server is not None:
        if before is not None and new.token and token is None and checked_server(server) != new.server:
            raise ValidationError(
                f"the token of {name!r} is for {new.server}; give --token for the other server too", field="token"
            )
        new = dataclasses.replace(new, server=checked_server(server))
    if token is not None:
        new = dataclasses.replace(new, token=_token(token))
        new.secret()
    if ca is not None:
        new = dataclasses.replace(new, ca=str(Path(ca).expanduser().absolute()) if ca else "")
        if ca:
            tls_context(new.ca)
    known.contexts[name] = new
    known.current = known.current or name
    write_contexts(known, session.config_file)
    if new.token and new.server.startswith("http:"):
        say(f"{new.server} is not encrypted: whoever is on the way there can read the token")
    if session.form is not Format.TABLE:
        print_records([_record(new, known)], session.form)


def _token(text: str) -> str:
    if text == "-":
        return sys.stdin.readline().strip()
    return f"@{Path(text[1:]).expanduser().absolute()}" if text.startswith("@") else text


@command(app, "delete")
def delete(
    session: Session, names: Annotated[list[str], typer.Argument(metavar="NAME...", show_default=False)]
) -> None:
    """Forget contexts.

    Example: lochness context delete prod
    """
    known = read_contexts(session.config_file)

    def remove(name: str) -> None:
        if name not in known.contexts:
            raise NotFoundError("context", name)
        del known.contexts[name]
        if known.current == name:
            known.current = ""

    session.for_each(names, remove)
    write_contexts(known, session.config_file)
