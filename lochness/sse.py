"""What is in a stream of server-sent events? Pure: lines in, events out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: its name ("message" when it says none), its data, and the id last heard, "" for none yet."""

    name: str
    data: str
    id: str


def parsed(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """The events in `lines`, which have lost their ends. Comments, other fields and what is cut off tell nothing."""
    name, id = "", ""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield ServerSentEvent(name or "message", "\n".join(data), id)
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            id = value
