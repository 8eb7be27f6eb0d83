"""lochness config: the cluster's settings."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from lochness.cli.arguments import pairs
from lochness.cli.command import command, noun
from lochness.cli.output import Format, print_mapping, print_strings
from lochness.cli.session import Session, expanded
from lochness.errors import NotFoundError

app = noun("config", "Settings of the whole cluster.")

PATH: Final = "/config"
_TITLES: Final = ("KEY", "VALUE")

KeysArgument = Annotated[list[str], typer.Argument(metavar="KEY...", show_default=False)]


@command(app, "list")
def list_settings(session: Session) -> None:
    """List the settings.

    Example: lochness config list
    """
    print_mapping(session.client.settings(PATH), _TITLES, session.form)


@command(app, "show")
def show(session: Session, keys: KeysArgument) -> None:
    """Print the values of settings.

    Example: lochness config show contact
    """
    settings = session.client.settings(PATH)

    def show_one(key: str) -> None:
        if key not in settings:
            raise NotFoundError("setting", key)
        if session.form is Format.TABLE:
            print_strings([settings[key]], session.form)
        else:
            print_mapping({key: settings[key]}, _TITLES, session.form)

    session.for_each(keys, show_one)


@command(app, "set")
def set_settings(
    session: Session, settings: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", show_default=False)]
) -> None:
    """Set settings, all of them or none.

    Example: lochness config set contact=ops@example.org
    """
    print_mapping(session.client.settings(PATH, pairs(expanded(settings), what="setting")), _TITLES, session.form)


@command(app, "delete")
def delete(session: Session, keys: KeysArgument) -> None:
    """Unset settings.

    Example: lochness config delete contact
    """
    before = session.client.settings(PATH)

    def check(key: str) -> None:
        if key not in before:
            raise NotFoundError("setting", key)
        gone.append(key)

    gone: list[str] = []
    session.for_each(keys, check)
    if gone:
        print_mapping(session.client.settings(PATH, dict.fromkeys(gone, "")), _TITLES, session.form)
