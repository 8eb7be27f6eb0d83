"""What does the configuration, and the guest's own restart policy, say should be done about a guest as it is?

1. "always": off for whatever reason, it is started. "on-failure": not when it switched itself off or was switched off
   through libvirt. "never": nothing but an operator starts or resumes it, also after a boot of the host.
2. A pause that libvirt itself makes and ends (migration, snapshot, save ...) is left alone, and so is one that tells of
   a guest that is broken (panicked, watchdog): a person should look at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from lochness_node.driver.protocol import Domain, DomainState
from lochness_node.guestwatch.desired import RestartPolicy, Wanted

OnStray = Literal["report", "stop"]
Need = Literal["start", "resume", "nothing", "leave"]

#: libvirt's words for "off in good order"; after a boot of the host it says "unknown".
CLEAN_STOPS: Final = frozenset({"shutdown", "destroyed", "saved", "migrated"})
#: Somebody paused it by hand, or its disk was full for a while.
RESUMABLE_PAUSES: Final = frozenset({"user", "ioerror", "unknown"})


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient to be and how far to go, see `GuestwatchSettings`."""

    start_missed: bool = True
    restart: RestartPolicy = "always"
    resume_paused: bool = True
    confirm_s: float = 2.0
    backoff_s: float = 5.0
    backoff_max_s: float = 300.0
    starts_max: int = 5
    stable_s: float = 120.0
    starts_at_once: int = 4
    start_pause_s: float = 2.0
    unbound: OnStray = "report"
    unwanted: OnStray = "report"
    unwanted_after_s: float = 120.0
    stop_grace_s: float = 60.0


def is_down(domain: Domain) -> bool:
    """Off, so that a start would do something. A crashed domain that was kept for inspection is not."""
    return domain.state is DomainState.STOPPED


def is_resumable(domain: Domain) -> bool:
    """Paused in a way that nobody else is going to end."""
    return domain.state is DomainState.PAUSED and domain.reason in RESUMABLE_PAUSES


def restart_policy(wanted: Wanted, policy: Policy) -> RestartPolicy:
    """The guest's own, else the configured one."""
    return wanted.restart or policy.restart


def needed(domain: Domain, wanted: Wanted, policy: Policy) -> Need:
    """What would make a guest that should run do so; "leave" when the policy is to leave it as it is."""
    restart = restart_policy(wanted, policy)
    if is_down(domain):
        is_left = restart == "never" or (restart == "on-failure" and domain.reason in CLEAN_STOPS)
        return "leave" if is_left else "start"
    if is_resumable(domain):
        return "resume" if policy.resume_paused and restart != "never" else "leave"
    return "nothing"
