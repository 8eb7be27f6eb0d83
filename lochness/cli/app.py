"""The command line as a whole: `lochness [options] NOUN VERB ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from lochness.cli.catalog import Root
from lochness.cli.command import (
    CaOption,
    ContextOption,
    FormatOption,
    JsonOption,
    ServerOption,
    TokenOption,
    chosen_format,
)
from lochness.cli.contexts import Given
from lochness.cli.exits import EXIT_STATUS_HELP
from lochness.cli.output import Format
from lochness.cli.session import Session

app = typer.Typer(
    name="lochness",
    cls=Root,
    help="Operate a Loch Ness cluster by its controller.",
    epilog=EXIT_STATUS_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"lochness {version('lochness')}")
        except PackageNotFoundError:
            typer.echo("lochness, not installed: running from its source")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    context_name: ContextOption = None,
    server: ServerOption = None,
    token: TokenOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
    output: FormatOption = None,
    version: Annotated[  # noqa: ARG001  # its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    session = Session(Given(context_name, server, token, ca), chosen_format(as_json, output) or Format.TABLE)
    context.obj = session
    context.call_on_close(session.close)
