"""What can be set on a node's daemons, and which values contradict each other?

`/etc/lochness/node.toml` holds the settings of all daemons of a node: shared ones at the top, each daemon's own in its
table ([heartbeat], [resources], [guestwatch], [agent]). Then come environment variables, then flags.

Invariants:
1. Whatever a daemon cannot work with is refused here, before it starts, in one line with the numbers.
2. A misspelt table is refused like a misspelt key.

Not guaranteed: that directories exist or that libvirt answers at the URI; the daemons find that out, say so and retry.
"""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from lochness import events
from lochness.errors import ConfigurationError, ValidationError
from lochness.identity import HYPERVISOR_ID_VARIABLE, parse_id, resolve_hypervisor_id, set_hypervisor_id
from lochness.log import Logger
from lochness.metrics import check_metrics_listen
from lochness.settings import COMMON_VARIABLES, CommonSettings, load_settings

DEFAULT_FILE: Final = Path("/etc/lochness/node.toml")
CONFIG_VARIABLE: Final = "LOCHNESS_CONFIG"

#: Setting -> environment variable, for what every daemon of a node shares.
NODE_VARIABLES: Final[Mapping[str, str]] = {
    **COMMON_VARIABLES,
    "id": HYPERVISOR_ID_VARIABLE,
    "libvirt": "LOCHNESS_LIBVIRT",
    "guest_dir": "LOCHNESS_GUEST_DIR",
    "lock_dir": "LOCHNESS_LOCK_DIR",
    "metrics_listen": "LOCHNESS_METRICS_LISTEN",
}

TABLES: Final = frozenset({"heartbeat", "resources", "guestwatch", "agent"})

NodeSettingsType = TypeVar("NodeSettingsType", bound="NodeSettings")


class NodeSettings(CommonSettings, kw_only=True):
    """Settings of every daemon of a node.

    `id` is the hypervisor's ID ("": HYPERVISOR_ID, then the hostname); after `load_node_settings` it is never blank.
    `metrics_listen` is where Prometheus finds /metrics: a loopback HOST:PORT (each daemon has a port of its own by
    default; `all` takes the heartbeat's), unix:/PATH, or "off".
    `guest_dir` holds guests' disks, `lock_dir` the per-guest locks that agent and guestwatch share.
    """

    id: str = ""
    libvirt: str = "qemu:///system"
    guest_dir: str = "/var/lib/lochness/guests"
    lock_dir: str = "/run/lochness"
    metrics_listen: str = "off"

    def check(self) -> None:
        super().check()
        for name in ("guest_dir", "lock_dir"):
            if not Path(getattr(self, name)).is_absolute():
                raise ConfigurationError(f"{name} must be an absolute path, got {getattr(self, name)!r}")
        if not self.libvirt:
            raise ConfigurationError("libvirt must be a connection URI such as qemu:///system, got ''")
        check_metrics_listen(self.metrics_listen)


#: etcd's lease of a host must outlive an election of etcd's leader.
MINIMUM_TTL_S: Final = 10
#: Above it a dead host would go unseen for an hour; most likely somebody meant milliseconds.
MAXIMUM_TTL_S: Final = 3600


class HeartbeatSettings(NodeSettings, kw_only=True):
    """Settings of the heartbeat, all in seconds.

    The lease lives `ttl_s` without renewal and is renewed every `interval_s`; `request_timeout_s` bounds each call to
    etcd (a beat makes two). A `ttl_s` below 10 needs `allow_short_ttl`: it declares hosts dead that only met a slow
    election of etcd's leader.
    """

    ttl_s: int = 30
    interval_s: float = 10.0
    request_timeout_s: float = 5.0
    allow_short_ttl: bool = False
    metrics_listen: str = "127.0.0.1:17011"

    def check(self) -> None:
        super().check()
        require_above_zero(self, "ttl_s", "interval_s", "request_timeout_s")
        if self.ttl_s < MINIMUM_TTL_S and not self.allow_short_ttl:
            raise ConfigurationError(
                f"ttl_s is {self.ttl_s} s, below the minimum of {MINIMUM_TTL_S} s "
                "(allow_short_ttl = true overrides this)"
            )
        if self.ttl_s > MAXIMUM_TTL_S:
            raise ConfigurationError(f"ttl_s is {self.ttl_s} s, above the maximum of {MAXIMUM_TTL_S} s")
        needed_s = self.interval_s + 2 * self.request_timeout_s
        if needed_s > self.ttl_s:
            raise ConfigurationError(
                f"interval_s + 2 x request_timeout_s = {self.interval_s:g} + 2 x {self.request_timeout_s:g} "
                f"= {needed_s:g} s must not exceed ttl_s = {self.ttl_s} s: one slow renewal would lose the lease"
            )


#: vCPUs per CPU. Nobody runs so many; it keeps the product within what a record holds.
MAXIMUM_CPU_OVERCOMMIT: Final = 1000.0


class ResourcesSettings(NodeSettings, kw_only=True):
    """Settings of the resources daemon.

    The host keeps `reserve_memory_mb` of its memory, `reserve_disk_mb` of the file system of `guest_dir` and
    `reserve_cpus` of its CPUs for itself, or the percentages of them where that is more. The CPUs left are offered
    `cpu_overcommit` times. `guest_overhead_mb` is the memory that QEMU itself takes for each guest on top of the
    guest's own (docs/operations.md has the source of its default). The record is written on change, and every
    `refresh_s`.
    """

    reserve_memory_mb: int = 1024
    reserve_disk_mb: int = 1024
    reserve_cpus: int = 0
    cpu_overcommit: float = 1.0
    reserve_memory_percent: float = 0.0
    reserve_disk_percent: float = 0.0
    reserve_cpus_percent: float = 0.0
    guest_overhead_mb: int = 128
    refresh_s: float = 60.0
    metrics_listen: str = "127.0.0.1:17012"

    def check(self) -> None:
        super().check()
        require_not_negative(self, "reserve_memory_mb", "reserve_disk_mb", "reserve_cpus", "guest_overhead_mb")
        for name in ("reserve_memory_percent", "reserve_disk_percent", "reserve_cpus_percent"):
            if not 0 <= getattr(self, name) < 100:
                raise ConfigurationError(f"{name} must be from 0 to below 100, got {getattr(self, name):g}")
        require_above_zero(self, "cpu_overcommit", "refresh_s")
        if not self.cpu_overcommit <= MAXIMUM_CPU_OVERCOMMIT:
            raise ConfigurationError(
                f"cpu_overcommit must be at most {MAXIMUM_CPU_OVERCOMMIT:g}, got {self.cpu_overcommit:g}"
            )


class GuestwatchSettings(NodeSettings, kw_only=True):
    """Settings of guestwatch.

    Every `interval_s` it looks at all guests; libvirt's events and new or removed bindings make it look at once. With
    `start_missed` a guest that should run and does not is started after it was seen so twice, `confirm_s` or more
    apart; after a failed or futile start it waits `backoff_s`, doubling up to `backoff_max_s`, and gives up after
    `starts_max` starts without the guest having stayed up for `stable_s`.

    `restart` is for guests whose metadata says no restart policy of their own. With `resume_paused` a paused guest that
    should run is resumed the same way. At most `starts_at_once` guests are started within `start_pause_s`.
    `unbound` and `unwanted` say what becomes of our domains without a binding, and of guests that run and should be
    off for longer than `unwanted_after_s`: "report", or "stop" too; `stop_grace_s` after the power button the plug.
    """

    metrics_listen: str = "127.0.0.1:17013"
    interval_s: float = 30.0
    start_missed: bool = True
    restart: Literal["always", "on-failure", "never"] = "always"
    resume_paused: bool = True
    confirm_s: float = 2.0
    backoff_s: float = 5.0
    backoff_max_s: float = 300.0
    starts_max: int = 5
    stable_s: float = 120.0
    starts_at_once: int = 4
    start_pause_s: float = 2.0
    unbound: Literal["report", "stop"] = "report"
    unwanted: Literal["report", "stop"] = "report"
    unwanted_after_s: float = 120.0
    stop_grace_s: float = 60.0

    def check(self) -> None:
        super().check()
        require_above_zero(self, "interval_s", "confirm_s", "backoff_s", "starts_max", "stable_s")
        require_above_zero(self, "starts_at_once", "start_pause_s", "unwanted_after_s", "stop_grace_s")
        if self.backoff_max_s < self.backoff_s:
            raise ConfigurationError(
                f"backoff_max_s is {self.backoff_max_s:g} s, below backoff_s = {self.backoff_s:g} s"
            )


def require_above_zero(settings: NodeSettings, *names: str) -> None:
    """Raise ConfigurationError for the first of the settings `names` that is not above 0."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ConfigurationError(f"{name} must be above 0, got {getattr(settings, name):g}")


def require_not_negative(settings: NodeSettings, *names: str) -> None:
    """Raise ConfigurationError for the first of the settings `names` that is below 0."""
    for name in names:
        if getattr(settings, name) < 0:
            raise ConfigurationError(f"{name} must not be below 0, got {getattr(settings, name):g}")


#: Settings that connections and names were made from: a new value needs a new process.
_FIXED_AT_START: Final = (
    "etcd",
    "etcd_ca",
    "etcd_cert",
    "etcd_key",
    "etcd_timeout_s",
    "id",
    "libvirt",
    "metrics_listen",
)


def reloaded(old: NodeSettingsType, new: NodeSettingsType, log: Logger, *more: str) -> NodeSettingsType:
    """`new`, read on a reload, as far as it can be in force now; says which settings need a restart and keeps those.

    These are the common ones that connections and names were made from, and those named `more`.
    """
    fixed = (*_FIXED_AT_START, *more)
    changed = [name for name in fixed if getattr(old, name) != getattr(new, name)]
    if changed:
        log.warning(events.SETTINGS_NEED_RESTART, settings=", ".join(changed))
    set_hypervisor_id(old.id)
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in fixed})


def load_node_settings(
    kind: type[NodeSettingsType],
    table: str,
    *,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
    variables: Mapping[str, str] = NODE_VARIABLES,
) -> NodeSettingsType:
    """The settings of the daemon `table`, its hypervisor ID resolved and set for this process.

    `flags` are the command's, "config" among them: a file named there, or by LOCHNESS_CONFIG, must exist;
    /etc/lochness/node.toml is read when it does. Raises ConfigurationError.
    """
    file = _config_file(flags.get("config"), environment)
    if file is not None:
        _refuse_unknown_tables(file)
    given = {name: value for name, value in flags.items() if name != "config"}
    settings = load_settings(kind, file=file, table=table, environment=environment, variables=variables, flags=given)
    settings.id = _hypervisor_id(settings.id, given.get("id"), file, environment)
    return settings


def _config_file(flag: str | None, environment: Mapping[str, str]) -> Path | None:
    named = flag or environment.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _refuse_unknown_tables(file: Path) -> None:
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, ValueError):
        return  # load_settings says it, with the place
    for name, value in content.items():
        if isinstance(value, dict) and name not in TABLES:
            raise ConfigurationError(f"unknown table [{name}] in the file {file}; known: {', '.join(sorted(TABLES))}")


def _hypervisor_id(resolved: str, flag: str | None, file: Path | None, environment: Mapping[str, str]) -> str:
    """The ID by the order of sources, with an error that names the source that won."""
    from_environment = environment.get(HYPERVISOR_ID_VARIABLE, "").strip()
    try:
        if resolved and not flag and not from_environment:
            return set_hypervisor_id(parse_id(resolved, field=f"the hypervisor ID in the file {file}"))
        return set_hypervisor_id(resolve_hypervisor_id(flag or "", environment, socket.gethostname))
    except ValidationError as error:
        raise ConfigurationError(error.message) from error
