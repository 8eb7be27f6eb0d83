"""How long does the command line take? Its help, and a table of 20,000 guests; each from exec to exit.

The controller is a server of prepared answers, so that the figures are the command's own. The median of `ROUNDS` runs,
beside what an empty Python takes in the same run. The goals are 300 ms for the help and 2,000 ms for the table.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import msgspec

GUESTS: Final = 20_000
HYPERVISORS: Final = 1_000
ROUNDS: Final = 5 if os.environ.get("QUICK") else 15
LOCHNESS: Final = (sys.executable, "-c", "from lochness.cli.main import main; main()")


def answers() -> dict[str, bytes]:
    """The bodies, by path."""
    hosts = [str(uuid.UUID(int=number)) for number in range(1, HYPERVISORS + 1)]
    flavor = str(uuid.UUID(int=7 << 64))
    guests = [
        {
            "id": str(uuid.UUID(int=(1 << 100) + number)), "metadata": {"name": f"guest-{number}"}, "type": "kvm",
            "flavor": flavor, "hypervisor": hosts[number % HYPERVISORS], "network": flavor, "subnet": flavor,
            "fwgroup": "", "vlangroup": "", "mac": "02:00:00:00:00:01", "ip": f"10.2.{number >> 8}.{number & 255}",
            "bridge": "br0", "power": "running", "status": {"state": "running", "reason": "", "since": ""},
        }
        for number in range(GUESTS)
    ]  # fmt: skip
    return {
        "/guests": msgspec.json.encode(guests),
        "/hypervisors": msgspec.json.encode([{"id": id, "metadata": {"name": f"hv-{id[-4:]}"}} for id in hosts]),
        "/flavors": msgspec.json.encode([{"id": flavor, "metadata": {"name": "small"}}]),
    }


@contextmanager
def serving(bodies: Mapping[str, bytes]) -> Iterator[str]:
    """A server of these answers; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = bodies[self.path.partition("?")[0]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def median_ms(command: Sequence[str], environment: Mapping[str, str], lines_min: int) -> float:
    """Of running `command`, which must succeed with so many lines."""
    took = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=60, check=True)
        took.append((time.perf_counter() - started_s) * 1000)
        if done.stdout.count(b"\n") < lines_min:
            raise SystemExit(f"{' '.join(command)} printed too little: {done.stdout[:200]!r}")
    return statistics.median(took)


def main() -> None:
    with serving(answers()) as url, tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "LOCHNESS_SERVER": url, "XDG_CONFIG_HOME": home}
        python_ms = median_ms([sys.executable, "-c", "pass"], environment, 0)
        help_ms = median_ms([*LOCHNESS, "--help"], environment, 10)
        list_ms = median_ms([*LOCHNESS, "guest", "list"], environment, GUESTS)
        json_ms = median_ms([*LOCHNESS, "guest", "list", "-j"], environment, GUESTS)
    print(f"{GUESTS} guests; medians of {ROUNDS} runs, in ms; Python alone: {python_ms:.0f}")
    print(f"cli help_ms={help_ms:.0f} list_ms={list_ms:.0f} json_ms={json_ms:.0f} python_ms={python_ms:.0f} n={GUESTS}")


if __name__ == "__main__":
    main()
