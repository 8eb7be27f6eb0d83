"""Logs as events with fields: to the journal with every field filterable, to a terminal for people, else JSON lines.

    log = get_logger("heartbeat")
    log.info(events.HEARTBEAT_LEASE_GRANTED, lease_id=17, ttl_s=30)

Levels: info = something changed, warning = degraded and retrying, error = a person must act.

Under systemd the fields are journal fields in upper case, and what names a thing is named as an id (`guest=` is
GUEST_ID): `journalctl -u lochness-guestwatch EVENT=guestwatch.action_failed GUEST_ID=...`.
Every entry at or above the level is counted, see `logged_counts`.

Not guaranteed: that an entry arrives. A journal that does not take it within 1 s loses that entry, the daemon goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO

from lochness.errors import ConfigurationError

# structlog imports rich when it can, for coloured tracebacks on a terminal; in a daemon that is 4 MB of memory for
# nothing. Kept from it here only: who uses rich himself still imports it.
_hides_rich: Final = "rich" not in sys.modules
if _hides_rich:
    sys.modules["rich"] = None  # type: ignore[assignment]  # Python's way of saying "not there"
try:
    import structlog
    from structlog.typing import FilteringBoundLogger
finally:
    if _hides_rich:
        del sys.modules["rich"]

LogFormat = Literal["journal", "console", "json"]

LEVELS: Final = ("debug", "info", "warning", "error")

_JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
_JOURNAL_TIMEOUT_S: Final = 1.0
#: Short names that call sites use -> the journal's, which say that the value is an id, or are not taken.
_JOURNAL_NAMES: Final = {
    "guest": "GUEST_ID",
    "hypervisor": "HYPERVISOR_ID",
    "job": "JOB_ID",
    "request": "REQUEST_ID",
    "controller": "CONTROLLER_ID",
    "subnet": "SUBNET_ID",
    "network": "NETWORK_ID",
    "image": "IMAGE_ID",
    "message": "DETAIL",  # MESSAGE is the whole entry for people
    "priority": "PRIORITY_FIELD",
}
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

Logger = FilteringBoundLogger


_counts: Final[Counter[tuple[str, str]]] = Counter()
_counts_lock: Final = threading.Lock()


def logged_counts() -> dict[tuple[str, str], int]:
    """How many entries this process has logged, by event and level."""
    with _counts_lock:
        return dict(_counts)


def _count(_logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    with _counts_lock:
        _counts[str(event_dict.get("event", "")), str(event_dict.get("level", method))] += 1
    return event_dict


def get_logger(component: str) -> Logger:
    """A logger whose entries carry `component`. Usable before `configure_logging`, which then applies to it."""
    logger: Logger = structlog.get_logger(component=component)
    return logger


def check_level(level: str) -> None:
    """Raise ConfigurationError unless `level` is one of `LEVELS`."""
    if level not in LEVELS:
        raise ConfigurationError(f"log level must be one of {', '.join(LEVELS)}, got {level!r}", field="log_level")


def configure_logging(level: str = "info", *, identifier: str = "lochness", stream: TextIO | None = None) -> LogFormat:
    """Send entries of `level` and above where they belong; answers where that is.

    The journal when stderr is connected to it (systemd sets JOURNAL_STREAM), a coloured console when it is a terminal,
    else one JSON object a line on stderr. Raises ConfigurationError for an unknown level.
    """
    check_level(level)
    target = stream if stream is not None else sys.stderr
    chosen = _format_for(target)
    processors: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _count]
    factory: Any = structlog.PrintLoggerFactory(target)
    match chosen:
        case "journal":
            processors.append(_JournalFields(identifier))
            factory = lambda *_: JournalLogger(_JOURNAL_SOCKET)  # noqa: E731  # structlog calls it per logger
        case "console":
            processors += [
                structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
                structlog.dev.ConsoleRenderer(colors=True),
            ]
        case "json":
            processors += [
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    return chosen


def _format_for(stream: TextIO) -> LogFormat:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return "json"
    if os.environ.get("JOURNAL_STREAM"):
        status = os.fstat(descriptor)
        if os.environ["JOURNAL_STREAM"] == f"{status.st_dev}:{status.st_ino}":
            return "journal"
    return "console" if os.isatty(descriptor) else "json"


class _JournalFields:
    """The last processor before `JournalLogger`: an event dict becomes the journal's native datagram."""

    def __init__(self, identifier: str) -> None:
        self._identifier = identifier

    def __call__(self, logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> bytes:
        level = str(event_dict.pop("level", method))
        event = str(event_dict.pop("event", ""))
        exception = structlog.processors.format_exc_info(logger, method, dict(event_dict)).get("exception", "")
        event_dict.pop("exc_info", None)
        shown = " ".join(f"{name}={value}" for name, value in event_dict.items() if name != "component")
        message = f"{event} {shown}".strip()
        fields = {
            "MESSAGE": f"{message}\n{exception}" if exception else message,
            "PRIORITY": str(_PRIORITY.get(level, 6)),
            "SYSLOG_IDENTIFIER": self._identifier,
            "EVENT": event,
            **{_journal_name(name): str(value) for name, value in event_dict.items()},
        }
        return b"".join(_journal_field(name, value) for name, value in fields.items())


def _journal_name(name: str) -> str:
    """The journal takes A-Z, 0-9 and _, not beginning with _ or a digit."""
    if name in _JOURNAL_NAMES:
        return _JOURNAL_NAMES[name]
    cleaned = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name.upper())
    return cleaned if cleaned[:1].isalpha() else f"F{cleaned}"


def _journal_field(name: str, value: str) -> bytes:
    data = value.encode(errors="replace")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


class JournalLogger:
    """Sends finished datagrams to the journal's native socket, each within 1 s or not at all."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def msg(self, datagram: bytes) -> None:
        for _ in range(2):  # the second try is for a journal that was restarted since
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._socket.settimeout(_JOURNAL_TIMEOUT_S)
                    self._socket.connect(self._path)
                self._socket.send(datagram)
                return
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                self._socket = None
        sys.stderr.write(datagram.decode(errors="replace").split("\n", 1)[0] + "\n")

    debug = info = warning = warn = error = critical = exception = fatal = failure = err = log = msg
