"""The man pages, made of what --help says: `python -m lochness.cli.manual DIRECTORY` writes lochness.1 and a page for
each noun and command, and the completions of three shells beside them. Packaging runs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from lochness.cli import exits
from lochness.cli.app import app
from lochness.cli.catalog import COMMANDS, NOUNS
from lochness.cli.completion import SCRIPTS, Shell

_COMPLETION_FILES = {Shell.BASH: "lochness.bash", Shell.ZSH: "_lochness", Shell.FISH: "lochness.fish"}


def main() -> None:
    """Write the files."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lochness.cli.manual DIRECTORY")
    directory = Path(sys.argv[1])
    for name, text in pages().items():
        target = directory / "man" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for shell, script in SCRIPTS.items():
        target = directory / "completion" / _COMPLETION_FILES[shell]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(script)


def pages() -> dict[str, str]:
    """Every page by its file name."""
    root: Any = typer.main.get_command(app)
    made = {"lochness.1": "".join(_root_page(root))}
    for name in (*NOUNS, *COMMANDS):
        made[f"lochness-{name}.1"] = "".join(_page(name, root.commands[name]))
    return made


def _head(name: str, summary: str) -> Iterator[str]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    day = f"{datetime.fromtimestamp(int(epoch), UTC):%Y-%m-%d}" if epoch else ""
    yield f'.TH {name.upper().replace("-", chr(92) + "-")} 1 "{day}" "Loch Ness" "Loch Ness"\n'
    yield f".SH NAME\n{_text(name)} \\- {_text(summary.rstrip('.'))}\n"


def _root_page(root: Any) -> Iterator[str]:
    yield from _head("lochness", root.help)
    yield ".SH SYNOPSIS\n.B lochness\n[OPTIONS] NOUN VERB [ARGS]...\n.br\n.B lochness\n[OPTIONS] COMMAND [ARGS]...\n"
    yield f".SH DESCRIPTION\n{_text(root.help)}\n"
    yield from _options(root)
    for title, entries in (("NOUNS", NOUNS), ("COMMANDS", COMMANDS)):
        yield f".SH {title}\n"
        for name, entry in entries.items():
            yield f".TP\n.BR lochness\\-{_text(name)} (1)\n{_text(entry.help)}\n"
    yield ".SH EXIT STATUS\n.nf\n"
    lines = (exits.__doc__ or "").splitlines()[2:]
    yield "".join(f"{_text(line)}\n" if line else ".sp\n" for line in lines)
    yield ".fi\n"
    yield ".SH FILES\n.TP\n.I ~/.config/lochness/config.toml\nThe contexts; see\n.BR lochness\\-context (1).\n"
    yield ".SH SEE ALSO\n"
    yield ",\n".join(f".BR lochness\\-{_text(name)} (1)" for name in (*NOUNS, *COMMANDS)) + "\n"


def _page(name: str, command: Any) -> Iterator[str]:
    verbs = getattr(command, "commands", None)
    summary = (command.help or "").replace("\b", "").split("\n\n")[0].replace("\n", " ")
    yield from _head(f"lochness-{name}", summary)
    if verbs is None:
        yield ".SH SYNOPSIS\n"
        yield _synopsis(f"lochness {name}", command)
        yield ".SH DESCRIPTION\n"
        yield from _description(command)
        yield from _options(command)
    else:
        yield ".SH SYNOPSIS\n"
        yield ".br\n".join(_synopsis(f"lochness {name} {verb}", each) for verb, each in verbs.items())
        yield ".SH DESCRIPTION\n" + _text(summary) + "\n"
        for verb, each in verbs.items():
            yield f".SH {verb.upper()}\n"
            yield _synopsis(f"lochness {name} {verb}", each)
            yield ".PP\n"
            yield from _description(each)
            yield from _options(each, heading=False)
    yield ".SH SEE ALSO\n.BR lochness (1)\n"


def _synopsis(path: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    words = [_optional(each.metavar or each.name.upper(), each.required) for each in arguments]
    return f".B {_text(path)}\n[OPTIONS] {_text(' '.join(words))}\n"


def _optional(word: str, is_required: bool) -> str:
    return word if is_required or word.startswith("[") else f"[{word}]"


def _description(command: Any) -> Iterator[str]:
    for number, paragraph in enumerate((command.help or "").split("\n\n")):
        if number:
            yield ".PP\n"
        if paragraph.startswith("\b\n"):  # what must not be filled: the example
            title, _, words = paragraph.removeprefix("\b\n").partition(" ")
            yield f"{_text(title)}\n.PP\n.nf\n.RS\n{_text(words)}\n.RE\n.fi\n"
        else:
            yield f"{_text(paragraph)}\n"


def _options(command: Any, *, heading: bool = True) -> Iterator[str]:
    found = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    if found and heading:
        yield ".SH OPTIONS\n"
    for each in found:
        choices = "|".join(str(getattr(choice, "value", choice)) for choice in getattr(each.type, "choices", ()))
        value = "" if each.is_flag else f" {each.metavar or choices or each.type.name.upper()}"
        flags = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in each.opts)
        variable = f" [{each.envvar}]" if each.envvar else ""
        yield f".TP\n{flags}\\fI{_text(value)}\\fR\n{_text((each.help or '') + variable) or '.br'}\n"


def _text(text: str) -> str:
    """`text` so that roff takes none of it for its own."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").split("\n")
    return "\n".join(f"\\&{line}" if line.startswith((".", "\\(aq")) else line for line in lines)


if __name__ == "__main__":
    main()
