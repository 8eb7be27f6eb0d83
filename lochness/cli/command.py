"""How does a function become a command, with the options that all commands have?

A command is a function whose first parameter is the Session; the rest are its own arguments and options in typer's
spelling. `-j` and `-o`, and what says which controller is meant, may stand before the noun or after the verb; the
latter wins. After the verb only -j and -o are in the help: four more would bury the command's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import typer

from lochness.cli.output import Format
from lochness.cli.session import Session
from lochness.defaults import DEFAULT_SERVER

Function = TypeVar("Function", bound=Callable[..., None])

JsonOption = Annotated[bool, typer.Option("--json", "-j", help="One JSON object a line.", show_default=False)]
FormatOption = Annotated[
    Format | None, typer.Option("--output", "-o", help="What to print of each object.", show_default=False)
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        envvar="LOCHNESS_CONTEXT",
        metavar="NAME",
        help="A controller known by this name.",
        show_default=False,
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="LOCHNESS_SERVER",
        metavar="URL",
        help=f"The controller: {DEFAULT_SERVER} when nothing else says so.",
        show_default=False,
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="LOCHNESS_TOKEN",
        metavar="TOKEN",
        help="What it knows you by; @FILE: in it.",
        show_default=False,
    ),
]
CaOption = Annotated[
    str | None,
    typer.Option(
        "--ca", envvar="LOCHNESS_CA", metavar="FILE", help="PEM certificates to trust for https.", show_default=False
    ),
]

#: Parameter -> flag, of what says which controller is meant.
_HIDDEN_FLAGS: Final = {
    "given_context": "--context",
    "given_server": "--server",
    "given_token": "--token",
    "given_ca": "--ca",
}
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
        hidden = _hidden_parameters(own)

        def run(context: typer.Context, *, as_json: bool, output: Format | None, **values: Any) -> None:
            session: Session = context.obj
            session.form = chosen_format(as_json, output) or session.form
            session.give(**{each.name.removeprefix("given_"): values.pop(each.name) for each in hidden})
            function(session, **values)

        taken = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        parameters = [taken, *keyword_only, *hidden, *_OUTPUT_PARAMETERS]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__ = function.__name__
        text = inspect.cleandoc(function.__doc__ or "").replace("\n\nExample:", "\n\n\b\nExample:")  # \b: do not wrap
        app.command(name, help=text)(run)
        return function

    return register


def _hidden_parameters(own: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """The options about the controller that a command does not have as its own."""
    taken = {flag for each in own for info in _metadata(each) for flag in _flags(info)}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(flag, hidden=True)],
        )
        for name, flag in _HIDDEN_FLAGS.items()
        if flag not in taken
    ]


def _metadata(parameter: inspect.Parameter) -> tuple[Any, ...]:
    return getattr(parameter.annotation, "__metadata__", ())


def _flags(info: Any) -> tuple[str, ...]:
    """The flags of an option; typer has the first one where a default would be."""
    return (str(getattr(info, "default", "")), *(getattr(info, "param_decls", None) or ()))


def chosen_format(as_json: bool, output: Format | None) -> Format | None:
    """The form that the options ask for, None when they do not."""
    return Format.JSON if as_json else output
