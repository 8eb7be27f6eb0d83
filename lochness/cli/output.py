"""How is a record shown: a table for people, a JSON object a line for programs, ids for the next command?

1. Standard output carries results only; progress and errors go to standard error.
2. Nothing that a record holds can control the terminal.

Tables are laid out here and not by rich: 20,000 rows must print in a blink.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lochness.model.record import JSONObject

_GB_IN_MB = 1024
_TB_IN_MB = 1024 * 1024
_LINES_A_WRITE = 256


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    ID = "id"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its title, what it shows of a record, and whether it is a number."""

    title: str
    text: Callable[[JSONObject], str]
    is_number: bool = False


def print_list(records: Sequence[JSONObject], columns: Sequence[Column], form: Format) -> None:
    """A list of records."""
    if form is not Format.TABLE:
        print_records(records, form)
        return
    rows = [[shown(column.text(record)) for column in columns] for record in records]
    _write(table([column.title for column in columns], rows, [column.is_number for column in columns]))


def print_records(records: Iterable[JSONObject], form: Format) -> None:
    """Records one by one; for people, their fields one a line."""
    lines: list[str] = []
    for number, record in enumerate(records):
        if form is Format.JSON:
            lines.append(_encoded(record))
        elif form is Format.ID:
            lines.append(shown(str(record.get("id") or record.get("tag") or "")))
        else:
            lines += [""] if number else []
            lines += fields(record)
    _write(lines)


def print_lines(lines: Sequence[str]) -> None:
    """Sentences for people."""
    _write([shown(line) for line in lines])


def print_strings(words: Sequence[str], form: Format) -> None:
    """A list of ids, as one JSON array or one a line."""
    _write([_encoded(words)] if form is Format.JSON else [shown(word) for word in words])


def print_mapping(mapping: dict[str, str], titles: tuple[str, str], form: Format) -> None:
    """An object of strings: a table of two columns, one JSON object, or its keys."""
    if form is Format.JSON:
        _write([_encoded(mapping)])
    elif form is Format.ID:
        _write([shown(key) for key in mapping])
    else:
        _write(table(titles, [[shown(key), shown(value)] for key, value in mapping.items()], [False, False]))


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], is_number: Sequence[bool]) -> list[str]:
    """The lines of a table: every column as wide as its widest cell, numbers to the right."""
    widths = [width(title) for title in titles]
    for row in rows:
        for index, cell in enumerate(row):
            widths[index] = max(widths[index], width(cell))
    header = _row(titles, widths, is_number)
    return [_bold(header), *(_row(row, widths, is_number) for row in rows)]


def _row(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    padded = []
    for cell, wanted, right in zip(cells, widths, is_number, strict=True):
        space = " " * (wanted - width(cell))
        padded.append(space + cell if right else cell + space)
    return "  ".join(padded).rstrip()


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text


def fields(record: JSONObject, indent: str = "") -> list[str]:
    """The lines of one record: its fields, nested ones below their name."""
    lines: list[str] = []
    widest = max((len(name) for name in record), default=0)
    for name, value in record.items():
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{shown(name)}:")
            lines += fields(value, indent + "  ")
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            lines.append(f"{indent}{shown(name)}:")
            for each in value:
                inner = fields(each, indent + "    ")
                lines += [f"{indent}  - {inner[0].strip()}", *inner[1:]] if inner else []
        else:
            lines.append(f"{indent}{shown(name) + ':':<{widest + 2}}{shown(plain(value))}".rstrip())
    return lines


def plain(value: Any) -> str:
    """A JSON value as a person writes it."""
    if value is None or value in ("", {}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(each) for each in value)
    return str(value)


def shown(text: str) -> str:
    """`text` on one line; control characters as \\xNN, so that no name can move the cursor."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def width(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def megabytes(amount: int) -> str:
    """MB in the unit that reads best: 96M, 7.7G, 1.2T."""
    if amount < _GB_IN_MB:
        return f"{amount}M"
    if amount < _TB_IN_MB:
        return f"{amount / _GB_IN_MB:.1f}G"
    return f"{amount / _TB_IN_MB:.1f}T"


def _encoded(value: Any) -> str:
    import msgspec  # a third of what --help may take

    return msgspec.json.encode(value).decode()


def _write(lines: Sequence[str]) -> None:
    # In pieces: an unbuffered output takes what fits of a large one, and drops the rest when its reader has gone.
    for start in range(0, len(lines), _LINES_A_WRITE):
        sys.stdout.write("\n".join(lines[start : start + _LINES_A_WRITE]) + "\n")
    sys.stdout.flush()
