"""What does a process tell Prometheus, and where does it listen for that?

    server = MetricsServer("127.0.0.1:17011", [process_figures, daemon_figures])     "unix:/run/x.sock", "off"
    body, content_type = render([process_figures, ...])                              for who has a web server already

A source is a function that answers figures of now; it is called at each scrape, on the scrape's thread, and must not
wait.

Invariants:
1. Metrics never keep a process from its work: a port that is taken is a warning, a source that raises is left out and
   counted, scrapes have a thread of their own.
2. prometheus_client is imported by the first scrape: who is never asked does not carry it (3 MB).
3. Only loopback or a unix socket: there is no authentication on it.

Not guaranteed: that figures of one scrape are of one instant. One scrape is answered at a time.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import socket
import stat
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from lochness import events
from lochness.errors import ConfigurationError
from lochness.listen import Address, check_listen
from lochness.log import get_logger, logged_counts

OFF: Final = "off"
_UNIX: Final = "unix:"
#: A scrape that says nothing for so long is over.
SCRAPE_SILENCE_LIMIT_S: Final = 5.0
_BACKLOG: Final = 8
#: Upper bounds of a pass's or call's duration, in seconds: from a look at an idle test driver to a stuck libvirt.
DURATION_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """One sample. `name` without the prefix "lochness_" and, for a counter, without "_total"; units last."""

    name: str
    help: str
    value: float
    kind: Literal["gauge", "counter"] = "gauge"
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DurationFigure:
    """How long something took: per bound of DURATION_BOUNDS_S how many took at most so long, and the sum, in s."""

    name: str
    help: str
    at_most: tuple[int, ...]
    count: int
    sum_s: float
    labels: tuple[tuple[str, str], ...] = ()


Source = Callable[[], Iterable[Figure | DurationFigure]]


@dataclass(slots=True)
class Durations:
    """Counts durations. One thread observes, any may ask."""

    _counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    _sum_s: float = 0.0

    def observe(self, took_s: float) -> None:
        self._counts[bisect_left(DURATION_BOUNDS_S, took_s)] += 1
        self._sum_s += took_s

    def figure(self, name: str, help: str, labels: tuple[tuple[str, str], ...] = ()) -> DurationFigure:
        counts = list(self._counts)
        at_most = tuple(sum(counts[: index + 1]) for index in range(len(DURATION_BOUNDS_S)))
        return DurationFigure(name, help, at_most, sum(counts), self._sum_s, labels)


def process_figures() -> Iterable[Figure]:
    """What every process tells: its version, and what it has logged."""
    yield Figure("build_info", "The running version.", 1.0, labels=(("version", _version()),))
    for (event, level), count in logged_counts().items():
        labels = (("event", event), ("level", level))
        yield Figure("log_events", "Log entries by event (docs/events.md) and level.", count, "counter", labels)


def _version() -> str:
    try:
        return importlib.metadata.version("lochness")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def render(sources: Sequence[Source]) -> tuple[bytes, str]:
    """The figures of all sources in Prometheus' text format, and its content type. Takes some ms; raises nothing."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(sources))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Any]:
        return ()

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        families: dict[str, Any] = {}
        failed = 0
        for figure in self._figures():
            if figure is None:
                failed += 1
                continue
            names, values = [key for key, _ in figure.labels], [value for _, value in figure.labels]
            name = f"lochness_{figure.name}"
            match figure:
                case DurationFigure():
                    family = families.setdefault(name, HistogramMetricFamily(name, figure.help, labels=names))
                    bounds = [*map(str, DURATION_BOUNDS_S), "+Inf"]
                    buckets = list(zip(bounds, [*figure.at_most, figure.count], strict=True))
                    family.add_metric(values, buckets, figure.sum_s)
                case Figure():
                    kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
                    family = families.setdefault(name, kind(name, figure.help, labels=names))
                    family.add_metric(values, figure.value)
        name = "lochness_metrics_sources_failed"
        families[name] = GaugeMetricFamily(name, "Sources that this scrape had to leave out.", failed)
        return families.values()

    def _figures(self) -> Iterable[Figure | DurationFigure | None]:
        for source in self._sources:
            try:
                yield from list(source())
            except Exception:  # a figure that cannot be told must not cost the others
                yield None


def check_metrics_listen(listen: str) -> Address | Path | None:
    """`listen` taken apart: an address, a socket's path, or None for "off". Raises ConfigurationError."""
    if listen == OFF:
        return None
    if listen.startswith(_UNIX):
        path = Path(listen.removeprefix(_UNIX))
        if not path.is_absolute():
            raise ConfigurationError(f"metrics_listen needs an absolute path, got {listen!r}")
        return path
    try:
        return check_listen(listen, insecure=False)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"metrics_listen must be a loopback HOST:PORT, unix:/PATH or off, got {listen!r}: {error.message}"
        ) from error


class MetricsServer:
    """Answers GET /metrics at `listen` until the process ends. A place that cannot be had is logged, not raised.

    `place` says where it listens, "" when nowhere.
    """

    def __init__(self, listen: str, sources: Sequence[Source]) -> None:
        self.place = ""
        self._sources = (process_figures, *sources)
        self._log = get_logger("metrics")
        place = check_metrics_listen(listen)
        if place is None:
            return
        try:
            listener = _unix_listener(place) if isinstance(place, Path) else _tcp_listener(place)
        except OSError as error:
            self._log.warning(events.METRICS_LISTEN_FAILED, address=listen, error=error.strerror or str(error))
            return
        name = listener.getsockname()
        self.place = f"{_UNIX}{name}" if isinstance(name, str) else str(Address(name[0], name[1]))
        threading.Thread(target=self._serve, args=(listener,), name="metrics", daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # out of descriptors, or a caller who has gone: never spin
                time.sleep(1.0)
                continue
            with connection, contextlib.suppress(OSError):
                connection.settimeout(SCRAPE_SILENCE_LIMIT_S)
                _answer(connection, self._sources)


def _answer(connection: socket.socket, sources: Sequence[Source]) -> None:
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        timeout = SCRAPE_SILENCE_LIMIT_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, explain="there is only /metrics here")
                return
            body, content_type = render(sources)
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a scrape changes nothing."""

    Handler(connection, ("", 0), None)  # type: ignore[arg-type]  # without a server: it is only kept


def _tcp_listener(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)


def _unix_listener(path: Path) -> socket.socket:
    """A socket for our user and group. One that a former process left is replaced; any other file is not."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
