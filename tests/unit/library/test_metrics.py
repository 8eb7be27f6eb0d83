"""What Prometheus is told, and where; asked over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lochness.errors import ConfigurationError
from lochness.metrics import Durations, Figure, MetricsServer, Source, check_metrics_listen, render


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def figures() -> Iterable[Figure]:
    yield Figure("guestwatch_guests", "Guests.", 3, labels=(("state", "running"),))
    yield Figure("guestwatch_guests", "Guests.", 1, labels=(("state", "missing"),))
    yield Figure("daemon_passes", "Passes.", 7, "counter")


def broken() -> Iterable[Figure]:
    raise RuntimeError("libvirt is away")


def test_figures_are_told_with_type_labels_and_the_process_itself():
    body, content_type = render([figures])
    told = samples(body.decode())
    assert content_type.startswith("text/plain")
    assert told["lochness_guestwatch_guests", (("state", "running"),)] == 3
    assert told["lochness_guestwatch_guests", (("state", "missing"),)] == 1
    assert told["lochness_daemon_passes_total", ()] == 7
    assert told["process_resident_memory_bytes", ()] > 1 << 20


def test_a_source_that_fails_costs_its_own_figures_only():
    told = samples(render([broken, figures])[0].decode())
    assert told["lochness_daemon_passes_total", ()] == 7
    assert told["lochness_metrics_sources_failed", ()] == 1


def test_durations_are_counted_up_to_each_bound():
    durations = Durations()
    for took_s in (0.005, 0.3, 99.0):
        durations.observe(took_s)
    source: Source = lambda: [durations.figure("pass_seconds", "Passes.")]  # noqa: E731  # with a type
    told = samples(render([source])[0].decode())
    assert told["lochness_pass_seconds_bucket", (("le", "0.005"),)] == 1
    assert told["lochness_pass_seconds_bucket", (("le", "0.25"),)] == 1
    assert told["lochness_pass_seconds_bucket", (("le", "0.5"),)] == 2
    assert told["lochness_pass_seconds_bucket", (("le", "+Inf"),)] == told["lochness_pass_seconds_count", ()] == 3
    assert told["lochness_pass_seconds_sum", ()] == pytest.approx(99.305)


def test_a_port_answers_metrics_and_nothing_else():
    server = MetricsServer("127.0.0.1:0", [figures])
    told = samples(httpx.get(f"http://{server.place}/metrics").text)
    assert told["lochness_daemon_passes_total", ()] == 7
    assert httpx.get(f"http://{server.place}/").status_code == 404
    assert httpx.post(f"http://{server.place}/metrics").status_code == 501


def test_a_caller_that_goes_away_without_a_word_costs_nothing():
    server = MetricsServer("127.0.0.1:0", [figures])
    host, port = server.place.split(":")
    socket.create_connection((host, int(port))).close()
    assert httpx.get(f"http://{server.place}/metrics").status_code == 200


def test_a_unix_socket_is_for_user_and_group_and_replaces_a_stale_one(tmp_path: Path):
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    MetricsServer(f"unix:{path}", [figures])
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert "lochness_daemon_passes_total 7.0" in client.get("http://here/metrics").text
    assert path.stat().st_mode & 0o777 == 0o660


def test_a_place_that_is_taken_is_no_reason_to_stop(tmp_path: Path):
    first = MetricsServer("127.0.0.1:0", [])
    assert MetricsServer(first.place, []).place == ""
    (tmp_path / "file").write_text("precious")
    assert MetricsServer(f"unix:{tmp_path}/file", []).place == ""
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("listen", ["0.0.0.0:17011", "17011", "unix:relative", "on", ""])
def test_only_loopback_and_sockets_are_places(listen: str):
    with pytest.raises(ConfigurationError, match="metrics_listen"):
        check_metrics_listen(listen)


def test_off_is_nowhere():
    assert check_metrics_listen("off") is None
    assert MetricsServer("off", []).place == ""
