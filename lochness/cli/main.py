"""The process `lochness`: its exit status, and the promise that nobody sees a traceback.

1. Every failure is one line on standard error and a status of `lochness.cli.exits`.
2. Ctrl-C at any moment, also while modules are loading, ends with 130.
3. A reader of our output that has gone (`lochness guest list | head`) is no failure worth words.
4. Output that cannot be written (a full disk) is told and is a failure; an output that was closed from the start
   (`>&-`) was meant so.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

_FAILED: Final = 1
_USAGE: Final = 2
_INTERRUPTED: Final = 130
_READER_GONE: Final = 141
#: What writing to a file fails with; all else that fails is translated where it is done.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: run the command line `arguments` (default: the process's) and exit."""
    _open_closed_streams()
    try:
        status = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("lochness: interrupted\n")
        status = _INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        status = _READER_GONE
    except OSError as error:
        if not _is_of_output(error):
            raise
        _drop_output()
        sys.stderr.write(f"lochness: cannot write the output: {error.strerror}\n")
        status = _FAILED
    if arguments is None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: no interrupt while the interpreter tidies up
    sys.exit(status)


def _is_of_output(error: OSError) -> bool:
    return isinstance(error, BrokenPipeError) or (error.errno in _UNWRITABLE and error.filename is None)


def _drop_output() -> None:
    """The interpreter flushes once more at its end; that one goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Python has None for a standard stream that was closed; nothing is read from it or seen of it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # it lives as long as the process


def run(arguments: list[str]) -> int:
    """Run one command line and answer its exit status."""
    if arguments[:1] == ["__complete"]:
        from lochness.cli.complete import answer

        sys.stdout.write(answer(arguments[1:]))
        return 0
    if any(_is_no_text(word) for word in arguments):
        sys.stderr.write("lochness: an argument is not UTF-8 text\n")
        return _USAGE
    import typer

    from lochness.cli.app import app
    from lochness.cli.exits import error_line, exit_status
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
    except OSError as error:
        if _is_of_output(error):
            raise
        return _bug(error)
    except Exception as error:
        if isinstance(error, usage_error):
            print_usage(error)
            return _USAGE
        return _bug(error)


def _is_no_text(word: str) -> bool:
    """Whether it came as bytes that are not UTF-8; Python has lone surrogates for them."""
    return not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word)


def _bug(error: Exception) -> int:
    """Tell of what must not happen."""
    from lochness.cli.exits import BUG, one_line
    from lochness.cli.session import say

    if os.environ.get("LOCHNESS_DEBUG"):
        raise error
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
    for words, plain in (("a valid int range", "a whole number"), ("a valid float range", "a number")):
        text = text.replace(f"is not {words}", f"is not {plain}")
    say(one_line(f"{text.rstrip('.')} (see {path} --help)"))


if __name__ == "__main__":
    main()
