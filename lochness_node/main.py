"""The command `lochness-node`: which daemon runs, with which settings?

1. A daemon's modules are imported when it is asked for: the heartbeat needs neither libvirt nor a web server to live.
2. Whatever is wrong with the configuration is one line on stderr and exit code 78, which systemd does not restart.
3. When the daemons have ended, so does the process, whatever threads a stuck call has left behind.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from lochness.errors import ConfigurationError
from lochness.identity import get_hypervisor_id
from lochness.log import configure_logging
from lochness.store.protocol import Store
from lochness_node.pass_loop import Daemon
from lochness_node.settings import (
    CONFIG_VARIABLE,
    DEFAULT_FILE,
    NODE_VARIABLES,
    GuestwatchSettings,
    HeartbeatSettings,
    NodeSettings,
    ResourcesSettings,
    load_node_settings,
)

Settings = TypeVar("Settings", bound=NodeSettings)
Flags = Mapping[str, Any]

_ABOUT: Final = {
    "heartbeat": "hold the lease that says this hypervisor is alive",
    "resources": "report what this hypervisor has for guests",
    "guestwatch": "report what the guests are, and start what should run",
    "agent": "the HTTP service that does the work on guests",
    "all": "all four in one process, for small hosts",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; answers its exit code, or ends the process when a daemon ran."""
    flags = vars(_parser().parse_args(arguments))
    command: str = flags["command"]
    try:
        if flags["check_config"]:
            return _check(command, flags)
        _run(command, flags)
    except ConfigurationError as error:
        print(f"lochness-node {command}: {error}", file=sys.stderr)
        return error.EXIT_CODE
    except KeyboardInterrupt:  # before the daemon listens for signals
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lochness-node", description="The daemons of one Loch Ness hypervisor.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, about in _ABOUT.items():
        own = commands.add_parser(command, help=about, description=about[0].upper() + about[1:] + ".")
        own.add_argument("--config", metavar="FILE", help=f"default: {DEFAULT_FILE} if it exists [{CONFIG_VARIABLE}]")
        own.add_argument("--check-config", action="store_true", help="say whether the configuration is valid, and end")
        own.add_argument("--id", metavar="UUID", help="this hypervisor's ID; default: the hostname [HYPERVISOR_ID]")
        _add(own, "etcd", "URL[,URL]", "default: http://127.0.0.1:2379")
        _add(own, "etcd-ca", "FILE", "PEM file of who signs etcd's certificates")
        _add(own, "etcd-cert", "FILE", "PEM file of our certificate for etcd")
        _add(own, "etcd-key", "FILE", "PEM file of its key")
        _add(own, "log-level", "LEVEL", "debug, info, warning or error")
        _add(own, "metrics-listen", "WHERE", "loopback HOST:PORT or unix:/PATH of /metrics, or off")
        if command != "heartbeat":
            _add(own, "libvirt", "URI", "default: qemu:///system")
            _add(own, "guest-dir", "DIR", "where guests' disks lie; default: /var/lib/lochness/guests")
            _add(own, "lock-dir", "DIR", "locks that agent and guestwatch share; default: /run/lochness")
        if command in ("agent", "all"):
            own.add_argument("--listen", metavar="HOST:PORT", help="default: 127.0.0.1:8080 [LOCHNESS_LISTEN]")
    return parser


def _add(parser: argparse.ArgumentParser, name: str, metavar: str, about: str) -> None:
    variable = NODE_VARIABLES[name.replace("-", "_")]
    parser.add_argument(f"--{name}", metavar=metavar, help=f"{about} [{variable}]")


def _check(command: str, flags: Flags) -> int:
    """Load what the command would load, connect to nothing."""
    for settings in [_load_for(name, flags) for name in _daemons_of(command)]:
        _open_store(settings, settings.etcd_timeout_s).close()
    print(f"lochness-node {command}: the configuration is valid, this hypervisor is {get_hypervisor_id()}")
    return 0


def _run(command: str, flags: Flags) -> NoReturn:
    from lochness_node.daemon import run_daemons

    names = _daemons_of(command)
    settings = _load_for(names[0], flags)
    configure_logging(settings.log_level, identifier=_identifier(flags))
    _leave(run_daemons([_BUILDERS[name](flags) for name in names], metrics_listen=settings.metrics_listen))


def _leave(exit_code: int) -> NoReturn:
    """End now. Taking the interpreter apart took 0.1 s (heartbeat) to 0.4 s (all) of the second that a stop may take,
    and may wait for a thread that is stuck in libvirt or gRPC; there is nothing left to take care of.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _daemons_of(command: str) -> tuple[str, ...]:
    return tuple(_BUILDERS) if command == "all" else (command,)


def _load(kind: type[Settings], table: str, flags: Flags) -> Settings:
    """The settings of one daemon. Flags that are another's are left out: `all` has the flags of all."""
    known = {"config", *kind.__struct_fields__}
    variables = NODE_VARIABLES if "listen" not in known else {**NODE_VARIABLES, "listen": "LOCHNESS_LISTEN"}
    own = {name: value for name, value in flags.items() if name in known}
    return load_node_settings(kind, table, flags=own, variables=variables)


def _identifier(flags: Flags) -> str:
    """What the journal calls the process."""
    return f"lochness-{flags['command']}"


def _rereading(load: Callable[[], Settings], flags: Flags) -> Callable[[], Settings]:
    """What a daemon calls on SIGHUP: its settings as they are now, the log level in force at once."""

    def reread() -> Settings:
        settings = load()
        configure_logging(settings.log_level, identifier=_identifier(flags))
        return settings

    return reread


def _open_store(settings: NodeSettings, timeout_s: float) -> Store:
    from lochness.store.connect import open_store

    return open_store(
        settings.etcd,
        ca=Path(settings.etcd_ca) if settings.etcd_ca else None,
        cert=Path(settings.etcd_cert) if settings.etcd_cert else None,
        key=Path(settings.etcd_key) if settings.etcd_key else None,
        timeout_s=timeout_s,
    )


def _load_for(name: str, flags: Flags) -> NodeSettings:
    kind: type[NodeSettings]
    match name:
        case "heartbeat":
            kind = HeartbeatSettings
        case "resources":
            kind = ResourcesSettings
        case "guestwatch":
            kind = GuestwatchSettings
        case _:
            from lochness_node.agent.settings import AgentSettings

            kind = AgentSettings
    return _load(kind, name, flags)


def _heartbeat(flags: Flags) -> Daemon:
    from lochness_node.heartbeat.shell import Heartbeat

    load = partial(_load, HeartbeatSettings, "heartbeat", flags)
    settings = load()
    store = _open_store(settings, settings.request_timeout_s)
    return Heartbeat(settings, store, reread=_rereading(load, flags))


def _resources(flags: Flags) -> Daemon:
    from lochness_node.driver.libvirt_driver import LibvirtDriver
    from lochness_node.resources.shell import ResourcesDaemon

    load = partial(_load, ResourcesSettings, "resources", flags)
    settings = load()
    return ResourcesDaemon(
        settings,
        _open_store(settings, settings.etcd_timeout_s),
        LibvirtDriver(settings.libvirt, read_only=True),
        reread=_rereading(load, flags),
    )


def _guestwatch(flags: Flags) -> Daemon:
    from lochness_node.driver.libvirt_driver import LibvirtDriver
    from lochness_node.guestwatch.shell import Guestwatch

    load = partial(_load, GuestwatchSettings, "guestwatch", flags)
    settings = load()
    return Guestwatch(
        settings,
        _open_store(settings, settings.etcd_timeout_s),
        LibvirtDriver(settings.libvirt),
        reread=_rereading(load, flags),
    )


def _agent(flags: Flags) -> Daemon:
    from lochness_node.agent.service import AgentDaemon
    from lochness_node.agent.settings import AgentSettings

    return AgentDaemon(_load(AgentSettings, "agent", flags))


#: Also the order in which `all` starts them.
_BUILDERS: Final[Mapping[str, Callable[[Flags], Daemon]]] = {
    "heartbeat": _heartbeat,
    "resources": _resources,
    "guestwatch": _guestwatch,
    "agent": _agent,
}


if __name__ == "__main__":
    sys.exit(main())
