"""The command `lochness-controller token`: tokens straight in the store, for the first one and for who lost the last.

Exit status: 0, 1 when it could not be done, 2 for a wrong command line, 78 for a wrong configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer

from lochness.errors import ConfigurationError, LochnessError, ValidationError
from lochness.model.job import rfc3339
from lochness.store.connect import open_store
from lochness.store.protocol import Store
from lochness.tokens import create_token, delete_token, new_token, read_tokens
from lochness_controller.settings import load_controller_settings

tokens = typer.Typer(add_completion=False, help="Tokens of the API's clients, kept in etcd.", no_args_is_help=True)

T = TypeVar("T")


@tokens.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose it is, for the journal.")],
    role: Annotated[str, typer.Option(help="read: changes nothing. operate: everything.")] = "read",
    days: Annotated[float, typer.Option(help="How long it is good; 0 for ever.")] = 0.0,
) -> None:
    """Make a token and print it. It is told this once."""

    def make(store: Store) -> str:
        if role not in ("read", "operate"):
            raise ValidationError(f"role must be read or operate, got {role!r}", field="role")
        if not 0 <= days <= 36600:  # a hundred years
            raise ValidationError(f"days must be 0 to 36600, got {days:g}", field="days")
        now = datetime.now(UTC)
        expires_at = rfc3339(now + timedelta(days=days)) if days else ""
        record, text = new_token(name, "operate" if role == "operate" else "read", now, expires_at=expires_at)
        create_token(store, record)
        return text

    typer.echo(_with_store(context, make))


@tokens.command("list")
def list_tokens(context: typer.Context) -> None:
    """Print all tokens: id, role, name, since when, until when."""
    for record in _with_store(context, read_tokens):
        until = record.expires_at or "-"
        typer.echo(f"{record.id}  {record.role:7}  {record.created_at}  {until:27}  {record.name}")


@tokens.command()
def delete(context: typer.Context, id: Annotated[str, typer.Argument(help="As `token list` has it.")]) -> None:
    """Remove a token: who has it is refused from now on."""
    record = _with_store(context, lambda store: delete_token(store, id))
    typer.echo(f"removed {record.id} ({record.name})")


def _with_store(context: typer.Context, work: Callable[[Store], T]) -> T:
    try:
        settings = load_controller_settings(context.obj or {})
        with open_store(
            settings.etcd,
            ca=settings.etcd_ca,
            cert=settings.etcd_cert,
            key=settings.etcd_key,
            timeout_s=settings.etcd_timeout_s,
        ) as store:
            return work(store)
    except ConfigurationError as error:
        typer.echo(f"lochness-controller: {error.message}", err=True)
        raise typer.Exit(ConfigurationError.EXIT_CODE) from error
    except LochnessError as error:
        typer.echo(f"lochness-controller: {error.message}", err=True)
        raise typer.Exit(1) from error
