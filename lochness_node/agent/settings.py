"""What can be set on the agent?

Not guaranteed: that the directories can be written; the agent says so when it starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lochness.errors import ConfigurationError
from lochness.listen import check_listen
from lochness.server_tls import ServerTLS
from lochness_node.agent.protection import Protection
from lochness_node.driver.domain_type import DomainTypeSetting
from lochness_node.settings import NodeSettings, require_above_zero, require_not_negative

AGENT_TABLE: Final = "agent"


class AgentSettings(NodeSettings, kw_only=True):
    """Settings of the agent, the [agent] table of node.toml.

    `listen` is HOST:PORT (port 0: one that is free); beyond loopback only with `tls_cert` and `tls_key` and besides
    `tls_client_ca` (clients show a certificate of it) or `token` (clients send it), or with `insecure`. All four are
    "" for none; the first three are PEM files. A client address may ask `requests_per_s` times a second, and
    `requests_burst` times at once.
    `state_dir` keeps the jobs, `image_dir` the images; file:// images are taken only from below `image_source_dirs`.
    `jobs_running` jobs run at a time, `jobs_queued_max` may wait, `jobs_kept` finished ones are remembered;
    what an agent before left unfinished is done anew when it was asked for within the last `jobs_resume_s`.
    An image file may have `image_bytes_max` bytes and its fetch may take `image_fetch_timeout_s`; it leaves
    `image_reserve_bytes` of the file system free. `domain_type` "auto"
    takes kvm where it works. A guest has `shutdown_timeout_s` to obey a shutdown before its power is cut. A job waits
    `lock_timeout_s` for guestwatch to let go of a guest.
    """

    listen: str = "127.0.0.1:8080"
    metrics_listen: str = "127.0.0.1:17014"
    insecure: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    token: str = ""
    requests_per_s: float = 200.0
    requests_burst: int = 1000
    state_dir: str = "/var/lib/lochness/agent"
    image_dir: str = "/var/lib/lochness/cache"
    image_source_dirs: tuple[str, ...] = ("/var/lib/lochness/images",)
    image_bytes_max: int = 1 << 40
    image_fetch_timeout_s: float = 3600.0
    image_reserve_bytes: int = 256 << 20
    jobs_running: int = 8
    jobs_queued_max: int = 1000
    jobs_kept: int = 1000
    jobs_resume_s: float = 3600.0
    domain_type: DomainTypeSetting = "auto"
    shutdown_timeout_s: float = 60.0
    lock_timeout_s: float = 30.0

    @property
    def protection(self) -> Protection:
        """Who may talk to the agent."""
        return Protection(ServerTLS(self.tls_cert, self.tls_key, self.tls_client_ca), self.token)

    def check(self) -> None:
        super().check()
        for name in ("state_dir", "image_dir"):
            _require_absolute(name, getattr(self, name))
        for directory in self.image_source_dirs:
            _require_absolute("image_source_dirs", directory)
        require_above_zero(
            self,
            "image_bytes_max", "image_fetch_timeout_s", "jobs_running", "jobs_queued_max", "jobs_kept", "jobs_resume_s",
            "shutdown_timeout_s", "lock_timeout_s", "requests_per_s", "requests_burst",
        )  # fmt: skip
        require_not_negative(self, "image_reserve_bytes")
        self.protection.check()
        check_listen(self.listen, insecure=self.insecure, is_protected=self.protection.is_enough)


def _require_absolute(name: str, path: str) -> None:
    if not Path(path).is_absolute():
        raise ConfigurationError(f"{name} must be an absolute path, got {path!r}")
