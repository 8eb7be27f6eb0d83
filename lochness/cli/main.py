"""The process `lochness`: its exit status, and the promise that nobody sees a traceback.

1. Every failure is one line on standard error and a status of `lochness.cli.exits`.
2. Ctrl-C at any moment, also while modules are loading, ends with 130.
3. A reader of our output that has gone (`lochness guest list | head`) is no failure worth words.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

_INTERRUPTED = 130
_READER_GONE = 141


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: run the command line `arguments` (default: the process's) and exit."""
    try:
        status = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("lochness: interrupted\n")
        status = _INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes once more at its end; that one goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _READER_GONE
    if arguments is None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: no interrupt while the interpreter tidies up
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command line and answer its exit status."""
    if arguments[:1] == ["__complete"]:
        from lochness.cli.complete import answer

        sys.stdout.write(answer(arguments[1:]))
        return 0
    import typer

    from lochness.cli.app import app
    from lochness.cli.exits import BUG, USAGE, error_line, exit_status, one_line
    from lochness.cli.session import say
    from lochness.errors import LochnessError

    # click's UsageError, wherever this version of typer keeps it
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        with typer.main.get_command(app).make_context("lochness", arguments) as context:
            context.command.invoke(context)
            failures: list[int] = context.obj.failures
            return failures[0] if failures else 0
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except LochnessError as error:
        say(error_line(error))
        return exit_status(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, usage_error):
            print_usage(error)
            return USAGE
        if os.environ.get("LOCHNESS_DEBUG"):
            raise
        say(one_line(f"this is a bug: {type(error).__name__}: {error} (LOCHNESS_DEBUG=1 shows where)"))
        return BUG


def print_usage(error: Exception) -> None:
    """A wrong command line in one line; a command that lacks its verb gets its help."""
    from lochness.cli.exits import one_line
    from lochness.cli.session import say

    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        sys.stderr.write(context.get_help() + "\n")
        return
    path = context.command_path if context is not None else "lochness"
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    say(one_line(f"{text.rstrip('.')} (see {path} --help)"))


if __name__ == "__main__":
    main()
