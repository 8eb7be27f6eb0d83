"""What can be set on the controller, and which values contradict each other?

`/etc/lochness/controller.toml`, then environment variables, then flags.

Invariant: what the controller can not work with is refused here, before it starts, in one line with the numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from lochness.agent_access import AgentAccess
from lochness.candidate_plugins import DEFAULT_NAMES, load_candidate_functions
from lochness.errors import ConfigurationError
from lochness.listen import check_listen
from lochness.server_tls import ServerTLS
from lochness.settings import COMMON_VARIABLES, CommonSettings, load_settings

DEFAULT_FILE: Final = Path("/etc/lochness/controller.toml")
CONFIG_VARIABLE: Final = "LOCHNESS_CONFIG"
CONTROLLER_VARIABLES: Final[Mapping[str, str]] = {
    **COMMON_VARIABLES,
    "listen": "LOCHNESS_LISTEN",
    "agent_token": "LOCHNESS_AGENT_TOKEN",
}

DEFAULT_LISTEN: Final = "127.0.0.1:17000"
#: Between two renewals of the lease may lie so many calls to etcd: a look at the other controllers, the renewal itself.
LEASE_CALLS: Final = 2

_POSITIVE: Final = (
    "api_threads",
    "requests_max",
    "jobs_unfinished_max",
    "jobs_running",
    "jobs_running_per_hypervisor",
    "fetch_limit_s",
    "create_limit_s",
    "delete_limit_s",
    "action_limit_s",
    "undo_limit_s",
    "force_limit_s",
    "line_limit_s",
    "job_kept_s",
    "jobs_kept_max",
    "look_interval_s",
    "lease_ttl_s",
    "agent_timeout_s",
)


class ControllerSettings(CommonSettings, kw_only=True):
    """Settings of `lochness-controller`.

    `listen` are HOST:PORT, all serving the same API; beyond loopback only with `tls_cert` and `tls_key` (PEM files) and
    besides `require_tokens` (clients send a token) or `tls_client_ca` (clients show a certificate of it), or with
    `insecure`. With `jobs_unfinished_max` jobs that have not ended more are refused (429), deletes at twice as many.
    At most `requests_max` requests are taken at a time, and `api_threads` of them worked on; `jobs_running`
    jobs are, of these `jobs_running_per_hypervisor` on one hypervisor. `fetch_limit_s`, `create_limit_s`,
    `delete_limit_s` and `action_limit_s` bound a job's step, from asking the agent to its answer; `undo_limit_s` the
    undoing of a create that failed, `force_limit_s` what a forced delete
    waits for its agent, `line_limit_s` the time until a job is begun. Finished jobs are kept `job_kept_s`, and at most
    `jobs_kept_max` of them. All jobs are looked at anew every `look_interval_s`,
    whatever the watch said. The controller's lease lives `lease_ttl_s`: so long a dead one's jobs wait for another
    controller; at least twice `etcd_timeout_s`, so that one slow call does not end it. `agent_port` is where agents
    listen, `agent_timeout_s` bounds a request to one. With `agent_ca` agents are asked by https and their
    certificates checked against it, `agent_cert` and `agent_key` are shown to them (PEM files), and `agent_token`
    is sent to them ("": none). `candidate_functions`
    are the names of those that choose a guest's hypervisor, in order (lochness.candidate_plugins), `failure_domain` the
    hypervisors' metadata that names what fails together, for guests of a group ("": each hypervisor by itself).
    """

    listen: list[str] = msgspec.field(default_factory=lambda: [DEFAULT_LISTEN])
    insecure: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    require_tokens: bool = False
    requests_max: int = 512
    api_threads: int = 32
    jobs_unfinished_max: int = 50_000
    jobs_running: int = 1000
    jobs_running_per_hypervisor: int = 16
    line_limit_s: float = 1800.0
    fetch_limit_s: float = 600.0
    create_limit_s: float = 120.0
    delete_limit_s: float = 120.0
    action_limit_s: float = 90.0
    undo_limit_s: float = 60.0
    force_limit_s: float = 10.0
    job_kept_s: float = 86400.0
    jobs_kept_max: int = 100_000
    look_interval_s: float = 60.0
    lease_ttl_s: int = 10
    agent_port: int = 8080
    agent_timeout_s: float = 10.0
    agent_ca: str = ""
    agent_cert: str = ""
    agent_key: str = ""
    agent_token: str = ""
    failure_domain: str = ""
    candidate_functions: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_NAMES))

    @property
    def agent_access(self) -> AgentAccess:
        """With what the controller comes to the agents."""
        return AgentAccess(ca=self.agent_ca, cert=self.agent_cert, key=self.agent_key, token=self.agent_token)

    @property
    def tls(self) -> ServerTLS:
        """How the API shows itself."""
        return ServerTLS(self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def is_protected(self) -> bool:
        """Whether it may be listened beyond loopback: encrypted, and nobody gets in unknown."""
        return bool(self.tls_cert and (self.require_tokens or self.tls_client_ca))

    def check(self) -> None:
        super().check()
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be above 0, got {getattr(self, name):g}")
        if self.lease_ttl_s < LEASE_CALLS * self.etcd_timeout_s:
            raise ConfigurationError(
                f"lease_ttl_s = {self.lease_ttl_s} must be at least {LEASE_CALLS} x etcd_timeout_s = "
                f"{LEASE_CALLS * self.etcd_timeout_s:g} s: one slow call to etcd would end the lease of a controller "
                "that lives, and others would take its jobs"
            )
        if not 0 < self.agent_port < 1 << 16:
            raise ConfigurationError(f"agent_port must be 1 to 65535, got {self.agent_port}")
        self.agent_access.check()
        self.tls.check()
        load_candidate_functions(self.candidate_functions)
        if not self.listen:
            raise ConfigurationError("listen names no address")
        for address in self.listen:
            check_listen(address, insecure=self.insecure, is_protected=self.is_protected)


#: What a reload may change: read at each use, from the one object that all parts share. The rest is built in.
RELOADABLE: Final = (
    "log_level",
    "line_limit_s",
    "fetch_limit_s",
    "create_limit_s",
    "delete_limit_s",
    "action_limit_s",
    "undo_limit_s",
    "force_limit_s",
    "job_kept_s",
    "jobs_kept_max",
)


def take_over(settings: ControllerSettings, new: ControllerSettings) -> list[str]:
    """Put what a reload may change of `new` into `settings`; answers which others differ and need a restart."""
    for name in RELOADABLE:
        setattr(settings, name, getattr(new, name))
    return [name for name in settings.__struct_fields__ if getattr(settings, name) != getattr(new, name)]


def load_controller_settings(
    flags: Mapping[str, Any], *, environment: Mapping[str, str] = os.environ, default_file: Path = DEFAULT_FILE
) -> ControllerSettings:
    """The settings. `flags` are the command's, "config" among them; None: not given.

    A file named by --config or LOCHNESS_CONFIG must exist; `default_file` is read when it does. Raises
    ConfigurationError.
    """
    named = flags.get("config") or environment.get(CONFIG_VARIABLE)
    file = Path(named) if named else default_file if default_file.exists() else None
    given = {name: value for name, value in flags.items() if name != "config"}
    return load_settings(
        ControllerSettings, file=file, environment=environment, variables=CONTROLLER_VARIABLES, flags=given
    )
