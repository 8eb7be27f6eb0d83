"""`make demo`: a guest of Loch Ness running before your eyes, on an etcd and a libvirt of the demo's own.

    python -m lochness_lab.demo [--once] [--directory DIR]

1. All that it makes lives in one directory and, with real guests, in one machine of namespaces: nothing of the real
   machine's libvirt, etcd, networks or files is touched.
2. However it ends - done, failed half-way, Ctrl-C, SIGTERM - it stops what it started and removes what it made.
3. A failure is one line that says what failed, then the end of the log of what failed; exit status 1.

Without root or QEMU the same chain runs on libvirt's test driver.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lochness.errors import ConfigurationError, DeadlineError, LochnessError, UnavailableError
from lochness_lab.catalog import HYPERVISOR, catalog, first_image, guest_creation, registration
from lochness_lab.cluster import Cluster
from lochness_lab.cluster_kinds import DriverCluster, QemuCluster
from lochness_lab.processes import run
from lochness_lab.waiting import wait_until

GUEST = "hello"
READY_LINE = "GUEST-READY"
COMMAND_LIMIT_S = 300.0
ALIVE_LIMIT_S = 30.0
RUNNING_LIMIT_S = 30.0
BOOT_LIMIT_S = 120.0
PING_LIMIT_S = 10.0
LOG_LINES = 15
#: Not below /run, which is private to the demo's machine; short, for sockets' paths have 108 bytes.
PARENT = Path("/var/tmp")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; answers its exit status: 0 done, 1 failed, 130 interrupted before it was done."""
    parser = argparse.ArgumentParser(prog="demo", description="A guest of Loch Ness, from nothing.")
    parser.add_argument("--once", action="store_true", help="end after the guest has answered and is deleted again")
    parser.add_argument("--directory", type=Path, metavar="DIR", help=f"what it makes; default: a new one in {PARENT}")
    parser.add_argument("--test-driver", action="store_true", help="libvirt's test driver, even where QEMU can be had")
    options = parser.parse_args(arguments)
    for number in _ENDING:
        signal.signal(number, _interrupt)
    screen = Screen()
    try:
        with _directory(options.directory) as directory:
            return _demonstrate(screen, directory, is_once=options.once, is_test_driver=options.test_driver)
    except LochnessError as error:
        first, *rest = error.message.splitlines()
        screen.failed(first, rest)
        return 1
    except OSError as error:
        screen.failed(str(error), [])
        return 1
    except KeyboardInterrupt:
        screen.tell("interrupted; everything is stopped and removed")
        return 130


def _interrupt(_number: int, _frame: object) -> None:
    """The first signal ends what is going on; the impatient ones after it must not end the cleaning up."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal ends this: whoever is impatient while we clean up has to wait, a second or two."""
    before = [signal.signal(number, signal.SIG_IGN) for number in _ENDING]
    try:
        yield
    finally:
        for number, handler in zip(_ENDING, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    """The demo's directory, removed at the end. Raises ConfigurationError for one that holds anything."""
    if wanted is None:
        path = Path(tempfile.mkdtemp(prefix="lochness-demo-", dir=PARENT))
    else:
        path = wanted.absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigurationError(f"{path} is not empty, and the demo removes what is in its directory")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be the demo's directory: {error.strerror}") from error
    try:
        yield path
    finally:
        with _undisturbed():
            shutil.rmtree(path, ignore_errors=True)


class Screen:
    """What the one before the screen reads: a line a step, with the seconds since the start."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()

    def tell(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started_s:5.1f} s] {text}", flush=True)

    def show(self, text: str) -> None:
        """A line of something else's output."""
        print(f"          | {text}", flush=True)

    def failed(self, what: str, log: Sequence[str]) -> None:
        print(f"demo: {what}", *(f"  {line}" for line in log), sep="\n", file=sys.stderr, flush=True)


def _demonstrate(screen: Screen, directory: Path, *, is_once: bool, is_test_driver: bool) -> int:
    cluster = _chosen_cluster(screen, directory, is_test_driver)
    screen.tell(f"everything is in {directory}, and is gone when the demo ends")
    try:
        with _log_on_failure(cluster):
            cluster.launch()
            guest = _first_guest(screen, cluster)
            if is_once:
                _delete(screen, cluster, guest["id"])
                screen.tell("done; stopping everything")
                return 0
        _wait_for_the_end(screen, cluster)
        return 0
    finally:
        with _undisturbed():
            cluster.stop()


def _chosen_cluster(screen: Screen, directory: Path, is_test_driver: bool) -> Cluster:
    reason = "asked for" if is_test_driver else QemuCluster.available()
    if reason is None:
        return QemuCluster(directory, tell=screen.tell)
    screen.tell(f"on libvirt's test driver, whose guests exist only on paper: no console, no ping ({reason})")
    return DriverCluster(directory, tell=screen.tell)


def _first_guest(screen: Screen, cluster: Cluster) -> dict[str, Any]:
    """From an empty cluster to a guest that answers; the guest as the API shows it."""
    if cluster.has_real_guests:
        screen.tell("the guest's image: Debian's kernel and busybox, built here unless it is already")
    image = first_image(cluster)
    screen.tell("the operator makes the hypervisor known")
    for words in registration(cluster):
        _run(screen, cluster, *words, "-o", "id")
    screen.tell("and what a guest needs")
    for words in catalog(cluster, image):
        _run(screen, cluster, *words, "-o", "id")
    cluster.wait_until_ready()
    _wait_until_alive(cluster)
    screen.tell("the hypervisor's daemons are ready; it is alive and has reported what it has")
    screen.tell("a guest: the scheduler picks a hypervisor, its agent fetches the image and starts the domain")
    _run(screen, cluster, *guest_creation(GUEST), "-o", "id")
    guest = _wait_until_running(cluster)
    if cluster.has_real_guests:
        _show_boot(screen, cluster, guest["id"])
        if not cluster.pings(guest["ip"], PING_LIMIT_S):
            raise UnavailableError(f"guest {GUEST} does not answer a ping to {guest['ip']} within {PING_LIMIT_S:g} s")
        screen.tell(f"{guest['ip']} answers a ping")
    _run(screen, cluster, "hv", "list")
    _run(screen, cluster, "guest", "list")
    return guest


def _run(screen: Screen, cluster: Cluster, *words: str) -> None:
    """Run `lochness`, its output as it comes. Raises UnavailableError when it fails, DeadlineError."""
    screen.tell(f"$ lochness {shlex.join(words)}")
    try:
        status = run(
            cluster.cli_command(*words),
            stdin=subprocess.DEVNULL,
            env=cluster.environment(),
            timeout=COMMAND_LIMIT_S,
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(f"lochness {' '.join(words[:2])} took over {COMMAND_LIMIT_S:g} s") from error
    if status != 0:
        raise UnavailableError(f"lochness {' '.join(words[:2])} ended with status {status}")


def _wait_until_alive(cluster: Cluster) -> None:
    def is_alive() -> bool:
        hypervisor = cluster.record("hv", "show", HYPERVISOR)
        return bool(hypervisor.get("alive") and hypervisor["total_resources"]["memory"])

    wait_until(is_alive, limit_s=ALIVE_LIMIT_S, what="heartbeat and resources of the hypervisor")


def _wait_until_running(cluster: Cluster) -> dict[str, Any]:
    def running() -> dict[str, Any] | None:
        guest = cluster.record("guest", "show", GUEST)
        return guest if guest.get("status", {}).get("state") == "running" else None

    guest = wait_until(running, limit_s=RUNNING_LIMIT_S, what=f"state running of guest {GUEST}")
    assert guest is not None  # wait_until answers what is true
    return guest


def _show_boot(screen: Screen, cluster: Cluster, guest_id: str) -> None:
    """The guest's console, line by line as it comes, until it says that it is ready."""
    screen.tell("its console:")
    shown = 0

    def is_ready() -> bool:
        nonlocal shown
        *lines, _ = cluster.console(guest_id).split("\n")
        for line in lines[shown:]:
            screen.show("".join(letter for letter in line if letter.isprintable()))
        shown = len(lines)
        return any(READY_LINE in line for line in lines)

    wait_until(is_ready, limit_s=BOOT_LIMIT_S, what=f"line with {READY_LINE} on the guest's console")
    screen.tell("it has booted")


def _delete(screen: Screen, cluster: Cluster, guest_id: str) -> None:
    _run(screen, cluster, "guest", "delete", GUEST, "--wait")
    left = cluster.left_of(guest_id)
    if left:
        raise UnavailableError(f"the deleted guest has left {len(left)} things: {', '.join(left)}")
    screen.tell("nothing of the guest is left: no domain, no file, no address, no key")


def _wait_for_the_end(screen: Screen, cluster: Cluster) -> None:
    wrapper = cluster.write_wrapper()
    screen.tell("the cluster is yours; from another terminal, for example:")
    for words in ("guest list", "guest shutdown hello --wait", f"{shlex.join(guest_creation('second'))}", "--help"):
        print(f"            {wrapper} {words}")
    if cluster.has_real_guests:
        print(f"            tail -f {cluster.guest_dir}/*/console.log")
    screen.tell("Ctrl-C stops and removes everything")
    try:
        ended = wait_for_failure(cluster.failing_part)
    except KeyboardInterrupt:
        screen.tell("stopping everything")
        return
    raise UnavailableError(f"{ended.name} ended by itself, status {ended.returncode}\n{ended.log_tail(LOG_LINES)}")


def wait_for_failure(failing: Callable[[], Any]) -> Any:
    """The first true value of `failing()`, asked every half second until Ctrl-C."""
    while not (found := failing()):
        time.sleep(0.5)
    return found


@contextmanager
def _log_on_failure(cluster: Cluster) -> Iterator[None]:
    """Add to an error without a log the ends of the logs that may explain it."""
    try:
        yield
    except LochnessError as error:
        if "\n" in error.message:
            raise
        failing = cluster.failing_part()
        parts = [failing] if failing else list(cluster.parts.values())
        ends = [f"the end of {part.log}:\n{part.log_tail(LOG_LINES)}" for part in parts if part.log_tail(1)]
        raise UnavailableError("\n".join([error.message, *ends])) from error


if __name__ == "__main__":
    sys.exit(main())
