"""Which words can stand at the cursor? What the completion of bash, zsh and fish asks: `lochness __complete SHELL ...`.

1. Never an error and never a traceback: a shell would print it into the line.
2. Names are asked of the controller within `NAMES_LIMIT_S` seconds; nothing else touches the network.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

NAMES_LIMIT_S: Final = 1.0
NAMES_MAX: Final = 1000

#: A word and what is said of it.
Candidate = tuple[str, str]


def answer(arguments: Sequence[str]) -> str:
    """What is printed for `__complete SHELL CURRENT WORD...`, where the words stand before the current one."""
    try:
        shell, current, *words = arguments
        return "".join(f"{_written(shell, each)}\n" for each in candidates(words, current))
    except Exception:  # whatever it is, a shell must not print it
        return ""


def _written(shell: str, candidate: Candidate) -> str:
    word, text = candidate
    if shell == "bash":
        return shlex.quote(word)
    if shell == "zsh":
        escaped = word.replace("\\", "\\\\").replace(":", "\\:")
        return f"{escaped}:{text}" if text else escaped
    return f"{word}\t{text}" if text else word


def candidates(words: Sequence[str], current: str) -> list[Candidate]:
    """The words that may stand after `words` and begin with `current`, none where files may stand."""
    import typer

    from lochness.cli.app import app

    command: Any = typer.main.get_command(app)
    path: list[str] = []
    given: dict[str, str] = {}
    pending: Any = None
    for word in words:
        if pending is not None:
            given[pending.opts[0]] = word
            pending = None
        elif word.startswith("-") and word != "-":
            option = _option(command, word.partition("=")[0])
            if option is not None and not option.is_flag and "=" not in word:
                pending = option
            elif option is not None and "=" in word:
                given[option.opts[0]] = word.partition("=")[2]
        elif hasattr(command, "commands"):
            command = command.commands.get(word)
            if command is None:
                return []
            path.append(word)
    found: Iterator[Candidate]
    if pending is not None:
        found = _values(pending, path, given)
    elif current.startswith("-"):
        found = _options(command)
    elif hasattr(command, "commands"):
        found = _commands(command)
    else:
        argument = next((each for each in command.params if each.param_type_name == "argument"), None)
        found = _values(argument, path, given) if argument is not None else iter(())
    return [(word, text) for word, text in found if word.startswith(current)]


def _option(command: Any, flag: str) -> Any:
    return next((each for each in command.params if flag in each.opts), None)


def _options(command: Any) -> Iterator[Candidate]:
    for each in command.params:
        if each.param_type_name == "option" and not each.hidden:
            yield each.opts[0], each.help or ""
    yield "--help", "Show this message and exit."


def _commands(command: Any) -> Iterator[Candidate]:
    from lochness.cli.catalog import ENTRIES, LoadedCommands

    if isinstance(command.commands, LoadedCommands):
        yield from ((name, entry.help) for name, entry in ENTRIES.items())
    else:
        yield from ((name, each.get_short_help_str()) for name, each in command.commands.items())


def _values(parameter: Any, path: Sequence[str], given: dict[str, str]) -> Iterator[Candidate]:
    """What a parameter takes: its choices, or names."""
    choices = getattr(parameter.type, "choices", None)
    if choices:
        yield from ((str(getattr(each, "value", each)), "") for each in choices)
    elif "NAME" in (parameter.metavar or "") or parameter.metavar in ("SUBNET", "[GUEST]"):
        yield from _names(parameter, path, given)


def _names(parameter: Any, path: Sequence[str], given: dict[str, str]) -> Iterator[Candidate]:
    from lochness.cli.session import Kind

    if parameter.name in ("name", "names", "context_name"):
        yield from _context_names(path)
        return
    by_word: dict[str, Kind] = {str(kind): kind for kind in Kind} | {kind.noun: kind for kind in Kind}
    is_argument = parameter.param_type_name == "argument"
    words = (parameter.name, parameter.name.rstrip("s"), parameter.metavar.strip("[]").lower())
    kind = next((by_word[word] for word in words if word in by_word), by_word.get(path[0]) if is_argument else None)
    if kind is not None and kind is not Kind.JOB:
        yield from _names_of(kind, given)


def _context_names(path: Sequence[str]) -> Iterator[Candidate]:
    import os

    from lochness.cli.contexts import config_file, read_contexts

    if not path or path[0] == "context":
        known = read_contexts(config_file(os.environ)).contexts
        yield from ((name, known[name].server) for name in sorted(known))


def _names_of(kind: Any, given: dict[str, str]) -> Iterator[Candidate]:
    import os

    from lochness.cli.contexts import Given
    from lochness.cli.session import Session, identity_of, name_of

    def said(flag: str) -> str | None:
        return given.get(flag) or os.environ.get(f"LOCHNESS_{flag.strip('-').upper()}") or None

    session = Session(Given(said("--context"), said("--server"), said("--token"), said("--ca")), limit_s=NAMES_LIMIT_S)
    try:
        for record in session.records(kind)[:NAMES_MAX]:
            yield name_of(record) or identity_of(record), identity_of(record) if name_of(record) else ""
    finally:
        session.close()
