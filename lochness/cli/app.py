"""The command line as a whole: `lochness [options] NOUN VERB ...`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from lochness.cli import backup, flavor, fsck, guest, hv, image, job, network, subnet
from lochness.cli.command import FormatOption, JsonOption, chosen_format, command
from lochness.cli.exits import EXIT_STATUS_HELP
from lochness.cli.output import Format
from lochness.cli.session import Session

DEFAULT_SERVER: Final = "http://127.0.0.1:17000"

app = typer.Typer(
    name="lochness",
    help="Operate a Loch Ness cluster by its controller.",
    epilog=EXIT_STATUS_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)
for _noun in (hv, guest, network, subnet, flavor, image, job):
    app.add_typer(_noun.app)
for _function in (fsck.fsck, backup.backup, backup.restore):
    command(app, _function.__name__)(_function)


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
    server: Annotated[
        str, typer.Option("--server", envvar="LOCHNESS_SERVER", metavar="URL", help="The controller.")
    ] = DEFAULT_SERVER,
    as_json: JsonOption = False,
    output: FormatOption = None,
    version: Annotated[  # noqa: ARG001  # its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    session = Session(server, chosen_format(as_json, output) or Format.TABLE)
    context.obj = session
    context.call_on_close(session.close)
