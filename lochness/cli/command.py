"""How does a function become a command, with the options that all commands have?

A command is a function whose first parameter is the Session; the rest are its own arguments and options in typer's
spelling. `-j` and `-o` may stand before the noun or after the verb; the latter wins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import typer

from lochness.cli.output import Format
from lochness.cli.session import Session

Function = TypeVar("Function", bound=Callable[..., None])

JsonOption = Annotated[bool, typer.Option("--json", "-j", help="One JSON object a line.", show_default=False)]
FormatOption = Annotated[
    Format | None, typer.Option("--output", "-o", help="What to print of each object.", show_default=False)
]
_OUTPUT_PARAMETERS: Final = (
    inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption),
    inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=FormatOption),
)


def noun(name: str, help: str) -> typer.Typer:
    """A group of commands about one kind of object."""
    return typer.Typer(name=name, help=help, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


def command(app: typer.Typer, name: str) -> Callable[[Function], Function]:
    """Register a function as the command `name` of `app`; its docstring is the help text."""

    def register(function: Function) -> Function:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(context: typer.Context, *, as_json: bool, output: Format | None, **values: Any) -> None:
            session: Session = context.obj
            session.form = chosen_format(as_json, output) or session.form
            function(session, **values)

        taken = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        parameters = [taken, *keyword_only, *_OUTPUT_PARAMETERS]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__ = function.__name__
        text = inspect.cleandoc(function.__doc__ or "").replace("\n\nExample:", "\n\n\b\nExample:")  # \b: do not wrap
        app.command(name, help=text)(run)
        return function

    return register


def chosen_format(as_json: bool, output: Format | None) -> Format | None:
    """The form that the options ask for, None when they do not."""
    return Format.JSON if as_json else output
