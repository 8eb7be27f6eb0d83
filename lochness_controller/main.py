"""The command `lochness-controller`.

Exit status: 0 after SIGTERM or SIGINT, 78 when it can not work as configured (systemd does not restart that), 2 for a
wrong command line.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

import typer

from lochness import events
from lochness.errors import ConfigurationError
from lochness.log import configure_logging, get_logger
from lochness.store.connect import open_store
from lochness.systemd_notify import SystemdNotifier
from lochness_controller.settings import ControllerSettings, load_controller_settings
from lochness_controller.token_command import tokens

OPEN_FILES: Final = 65_536

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(tokens, name="token")


def _option(metavar: str, help: str) -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=False)


@app.callback(invoke_without_command=True)
def controller(
    context: typer.Context,
    etcd: Annotated[str | None, _option("URL[,URL]", "LOCHNESS_ETCD; default http://127.0.0.1:2379")] = None,
    etcd_ca: Annotated[str | None, _option("FILE", "LOCHNESS_ETCD_CA")] = None,
    etcd_cert: Annotated[str | None, _option("FILE", "LOCHNESS_ETCD_CERT")] = None,
    etcd_key: Annotated[str | None, _option("FILE", "LOCHNESS_ETCD_KEY")] = None,
    listen: Annotated[
        list[str] | None, _option("HOST:PORT", "LOCHNESS_LISTEN; repeatable; default 127.0.0.1:17000")
    ] = None,
    config: Annotated[str | None, _option("FILE", "LOCHNESS_CONFIG; default /etc/lochness/controller.toml")] = None,
    log_level: Annotated[str | None, _option("LEVEL", "LOCHNESS_LOG_LEVEL: debug, info, warning, error")] = None,
    check_config: Annotated[bool, typer.Option("--check-config", help="Check the configuration and end.")] = False,
) -> None:
    """The central process of Loch Ness: HTTP API, scheduler, workers.

    Settings come from the file, then the environment, then the flags; the later wins. Without a command it runs until
    it is stopped.
    """
    flags: dict[str, Any] = {
        "etcd": etcd,
        "etcd_ca": etcd_ca,
        "etcd_cert": etcd_cert,
        "etcd_key": etcd_key,
        "listen": listen or None,
        "config": config,
        "log_level": log_level,
    }
    if context.invoked_subcommand is not None:
        context.obj = flags
        return
    log = get_logger("controller")
    configure_logging(identifier="lochness-controller")
    try:
        settings = load_controller_settings(flags)
        configure_logging(settings.log_level, identifier="lochness-controller")
        if check_config:
            typer.echo("the configuration is in order")
            return
        code = run(settings, partial(load_controller_settings, flags))
    except ConfigurationError as error:
        log.error(events.DAEMON_MISCONFIGURED, error=error.message)
        code = ConfigurationError.EXIT_CODE
    _end(code)


def run(settings: ControllerSettings, reread: Callable[[], ControllerSettings]) -> int:
    """Run a controller until a signal; answers the exit status. `reread` answers the settings as they are at a SIGHUP.

    Raises ConfigurationError.
    """
    _allow_open_files()
    from lochness_controller.service import Controller  # the web framework takes longer to import than --help may take

    store = open_store(
        settings.etcd,
        ca=settings.etcd_ca,
        cert=settings.etcd_cert,
        key=settings.etcd_key,
        timeout_s=settings.etcd_timeout_s,
    )
    running = Controller(settings, store, reread=reread, notifier=SystemdNotifier(), on_filled=_spare_what_stays)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: running.ask_stop())
    signal.signal(signal.SIGHUP, lambda _number, _frame: running.ask_reload())
    running.run()
    return 0


def _allow_open_files() -> None:
    """As many as this process may have: 1,000 jobs and 2,000 clients have a connection each, by default 1,024 may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a sandbox that forbids it: its unit says how many
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _spare_what_stays() -> None:
    """Let the garbage collector pass over what was read at the start: 20,000 guests and their jobs are 300,000 objects,
    and each look at all of them stops every thread for 0.3 s. Once only: what is spared is never looked at again."""
    gc.collect()
    gc.freeze()


def _end(code: int) -> None:
    """End at once: a thread that waits for an agent or a store must not hold up the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
