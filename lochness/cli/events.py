"""lochness events: what changes in the cluster, as it changes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lochness.cli.output import Format, shown
from lochness.cli.session import Kind, Session, name_of
from lochness.errors import ValidationError

if TYPE_CHECKING:
    from lochness.api_client import Event
    from lochness.model.record import JSONObject

#: Events that say where the stream is, not what has changed.
SIGNALS: Final = ("ready", "alive")
_VALUE_SHOWN_MAX: Final = 100


def events(
    session: Session,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as things happen, until Ctrl-C.", show_default=False)
    ] = False,
    since: Annotated[
        int | None, typer.Option("--since", metavar="REVISION", min=0, help="Begin after it.", show_default=False)
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind", metavar="KIND,...", help="Only of these: guest, job, hypervisor ...", show_default=False
        ),
    ] = "",
) -> None:
    """Print every change of the cluster, in order: from now on (-f), or since a revision.

    A controller that restarts meanwhile is waited for, and nothing is missed. Each line of -j has the revision to go on
    from.

    Example: lochness events --since 1 --kind guest,job
    """
    if not follow and since is None:
        raise ValidationError("say --follow, or --since REVISION (see lochness events --help)", field="follow")
    end = None
    if not follow:
        revision = session.client.record("/readyz").get("revision")
        end = revision if isinstance(revision, int) else 0
    names = _Names(session)
    for event in session.client.events(since=since, kinds=kind, is_following=follow):
        if event.name not in SIGNALS:
            _print(session, event.data, names, has_time=follow)
        if end is not None and _has_come_to(event, end):
            return


def _has_come_to(event: Event, end: int) -> bool:
    """Whether nothing up to the revision `end` comes after this; of a revision only the last change has the id."""
    return int(event.data.get("revision") or 0) >= end and bool(event.id or event.name in SIGNALS)


def _print(session: Session, event: JSONObject, names: _Names, *, has_time: bool) -> None:
    import msgspec

    if session.form is Format.JSON:
        text = msgspec.json.encode(event).decode()
    elif session.form is Format.ID:
        text = shown(str(event.get("id", "")))
    else:
        at = time.strftime("%H:%M:%S ") if has_time else ""
        text = f"{at}{shown(told(event, names.of(event)))}"
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _Names:
    """What to call the objects that events are about: their names, learnt from what passes and from one list."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, dict[str, str]] = {}

    def of(self, event: JSONObject) -> str:
        kind, id = str(event.get("kind")), str(event.get("id", ""))
        if self._session.form is not Format.TABLE or kind not in tuple(Kind) or kind in ("job", "vlan"):
            return id
        if kind not in self._known:
            self._known[kind] = self._session.names(Kind(kind))
        value = event.get("value")
        if event.get("part") == "metadata" and isinstance(value, dict) and name_of(value):
            self._known[kind][id] = name_of(value)
        return self._known[kind].get(id, id)


def told(event: JSONObject, name: str) -> str:
    """One line: kind, name, what of it, and how it is now. Pure."""
    part = str(event.get("part") or "")
    words = [str(event.get("kind")), name, part]
    if event.get("action") == "gone":
        words.append("gone")
    else:
        words.append(value_text(str(event.get("kind")), part, event.get("value")))
    return " ".join(word for word in words if word)


def value_text(kind: str, part: str, value: Any) -> str:
    """A key's value in a few words. Pure."""
    if kind == "job" and isinstance(value, dict):
        words = [
            value.get("request"),
            value.get("action"),
            value.get("status"),
            value.get("progress"),
            value.get("error"),
        ]
        return " ".join(str(word) for word in words if word)
    if part == "status" and isinstance(value, dict):
        return " ".join(str(value.get(name)) for name in ("state", "reason") if value.get(name))
    if part == "power" and isinstance(value, dict):
        return str(value.get("desired", value))
    if isinstance(value, dict):
        text = " ".join(f"{field}={_short(each)}" for field, each in value.items() if each not in ("", None, {}, [], 0))
    else:
        text = str(value)
    return text if len(text) <= _VALUE_SHOWN_MAX else f"{text[:_VALUE_SHOWN_MAX]}..."


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}={each}" for name, each in value.items()) + "}"
    return str(value)
