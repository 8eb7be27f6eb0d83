"""`lochness-lab`: whole hosts on this machine, to try Loch Ness on and to break.

    lochness-lab up            three hypervisors, a management host, an etcd of three members, and a first guest
    lochness-lab lochness ...  the operator's command on the management host
    lochness-lab down          gone without a trace

Every command says in one line what is wrong when something is; exit status 1, and 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lochness.errors import ConfigurationError, LochnessError, UnavailableError
from lochness_lab.hosts.laboratory import Laboratory
from lochness_lab.hosts.table import describe
from lochness_lab.waiting import wait_until

FIRST_GUEST = "hello"
DEFAULT_DIRECTORY = Path("/var/tmp/lochness-hosts")
PING_LIMIT_S = 120.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; answers its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    ours, operators = _divided(words)
    options = _parser().parse_args(ours)
    options.operators = operators
    started_s = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{time.monotonic() - started_s:5.1f} s] {text}", flush=True)

    lab = Laboratory(options.directory, dist=options.dist, tell=tell)
    try:
        if os.geteuid() != 0:
            raise ConfigurationError("the laboratory's hosts need root: run it with sudo")
        status: int = options.run(lab, options)
    except LochnessError as error:
        first, *rest = error.message.splitlines() or [""]
        print(f"lochness-lab: {first}", *(f"  {line}" for line in rest), sep="\n", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"lochness-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lochness-lab: interrupted", file=sys.stderr)
        return 130
    return status


def _divided(words: list[str]) -> tuple[list[str], list[str]]:
    """Our own words, up to the command `lochness`, and the operator's: argparse would take their options for ours."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in ("-d", "--directory", "--dist") else 1
    return (words[: at + 1], words[at + 1 :]) if words[at : at + 1] == ["lochness"] else (words, [])


def _interruptible() -> None:
    """Signals end `up` with everything stopped. A second one does not end the cleaning up."""

    def interrupt(_number: int, _frame: object) -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDING:
        signal.signal(number, interrupt)


def _up(lab: Laboratory, options: argparse.Namespace) -> int:
    _interruptible()
    lab.up(options.hypervisors, ends_with_us=False)
    try:
        lab.tell("every host is up, every daemon ready")
        lab.register()
        if not options.empty:
            guest = lab.create_guest(FIRST_GUEST)
            lab.tell(f"guest {FIRST_GUEST} runs on {lab.host_of(guest).name}")
            wait_until(
                lambda: lab.pings(guest["ip"], 1), limit_s=PING_LIMIT_S, what=f"answer to a ping of {guest['ip']}"
            )
            lab.tell(f"{guest['ip']} answers a ping")
    except BaseException:
        lab.down()
        raise
    _print_table(lab)
    print(
        "\n  lochness-lab shell h1             a shell on a host\n"
        "  lochness-lab lochness guest list  the operator's command\n"
        "  lochness-lab power-off h1         and see; --help tells the rest\n"
        "  lochness-lab down                 the end of it"
    )
    return 0


def _prepare(lab: Laboratory, _options: argparse.Namespace) -> int:
    _interruptible()
    lab.prepare()
    return 0


def _down(lab: Laboratory, _options: argparse.Namespace) -> int:
    was_there = lab.directory.exists()
    lab.down()
    print("everything is stopped and removed" if was_there else f"there is no laboratory in {lab.directory}")
    return 0


def _status(lab: Laboratory, _options: argparse.Namespace) -> int:
    _print_table(lab)
    return 0


def _shell(lab: Laboratory, options: argparse.Namespace) -> int:
    return _hand_over([*lab.host(options.host).enter(ends_with_us=False), *_TERMINAL, "bash", "-l"])


def _exec(lab: Laboratory, options: argparse.Namespace) -> int:
    if not options.words:
        raise ConfigurationError("exec needs a command: lochness-lab exec h1 systemctl status")
    return _hand_over([*lab.host(options.host).enter(ends_with_us=False), *options.words])


def _lochness(lab: Laboratory, options: argparse.Namespace) -> int:
    columns = f"COLUMNS={os.get_terminal_size().columns}" if sys.stdout.isatty() else "COLUMNS=160"
    return _hand_over([*lab.management.enter(ends_with_us=False), "env", columns, "lochness", *options.operators])


def _log(lab: Laboratory, options: argparse.Namespace) -> int:
    words = ["journalctl", "--no-pager", "--lines", str(options.lines), *(["--follow"] if options.follow else [])]
    units = options.unit or ["lochness*"]
    return _hand_over(
        [*lab.host(options.host).enter(ends_with_us=False), *words, *(f"--unit={unit}" for unit in units)]
    )


def _power_off(lab: Laboratory, options: argparse.Namespace) -> int:
    for host in [lab.host(name) for name in options.hosts]:
        host.cut_power()
        print(f"{host.name} has no power")
    return 0


def _power_on(lab: Laboratory, options: argparse.Namespace) -> int:
    lab.power_on(*options.hosts)
    print(f"{', '.join(options.hosts)}: up")
    return 0


def _reboot(lab: Laboratory, options: argparse.Namespace) -> int:
    hosts = [lab.host(name) for name in options.hosts]
    for host in hosts:
        if not host.is_on:
            raise UnavailableError(f"{host.name} is off; lochness-lab power-on {host.name} turns it on")
    for host in hosts:
        host.shut_down()
    return _power_on(lab, options)


def _cut(lab: Laboratory, options: argparse.Namespace) -> int:
    lab.cut(*options.hosts)
    print(f"{', '.join(options.hosts)}: off the network; lochness-lab heal ends it")
    return 0


def _heal(lab: Laboratory, _options: argparse.Namespace) -> int:
    lab.heal()
    print("every host is on the network")
    return 0


_TERMINAL = ("env", f"TERM={os.environ.get('TERM', 'dumb')}")


def _hand_over(command: list[str]) -> int:
    """Run a command on our own terminal; its exit status is ours."""
    with contextlib.suppress(KeyboardInterrupt):  # it got the Ctrl-C too, and ends by it
        return subprocess.run(command, check=False).returncode
    return 130


def _print_table(lab: Laboratory) -> None:
    rows = list(describe(lab))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lochness-lab", description="Whole hosts on this machine, to try Loch Ness on."
    )
    parser.add_argument(
        *("--directory", "-d"),
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("LOCHNESS_LAB") or DEFAULT_DIRECTORY),
        help=f"which laboratory [LOCHNESS_LAB; {DEFAULT_DIRECTORY}]",
    )
    parser.add_argument("--dist", type=Path, metavar="DIR", default=Path("dist"), help="the packages [dist]")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        found.set_defaults(run=run)
        return found

    up = command("up", _up, "Boot the hosts, make them known, and start a first guest.")
    up.add_argument("-n", "--hypervisors", type=int, default=3, metavar="N", help="how many carry guests [3]")
    up.add_argument("--empty", action="store_true", help="without the first guest")
    command("prepare", _prepare, "Make what `up` needs: this checkout's packages, the hosts' Debian, the image.")
    command("down", _down, "End everything and remove it.")
    command("status", _status, "What runs where.")
    command("shell", _shell, "A shell on a host.").add_argument("host")
    inside = command("exec", _exec, "Run a command on a host.")
    inside.add_argument("host")
    inside.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    command("lochness", _lochness, "Run the operator's command, lochness with what follows, on the management host.")
    log = command("log", _log, "A host's journal.")
    log.add_argument("host")
    log.add_argument("-u", "--unit", action="append", help="of these units [lochness*]")
    log.add_argument("-f", "--follow", action="store_true")
    log.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="how many of the last [50]")
    for name, run, text in (
        ("power-off", _power_off, "Cut hosts' power: all that runs there is gone at once."),
        ("power-on", _power_on, "Turn hosts on again, and wait until they have booted."),
        ("reboot", _reboot, "Shut hosts down in order, and boot them."),
        ("cut", _cut, "Take hosts off the network. Those of one command still reach each other."),
    ):
        command(name, run, text).add_argument("hosts", nargs="+", metavar="HOST")
    command("heal", _heal, "Every host on the network again.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
