"""How does an agent come to do one step of a job, exactly once in effect, whatever fails on the way?

    ask -> remember the agent's job id (`remote`) -> wait for that job's end

Invariants:
1. An agent that is away, busy or restarting is asked again, with back-off, until the step's limit; then the step fails
   with a DeadlineError that names the limit.
2. When it is not known whether the agent has taken the step, its jobs are looked through first, where it tells them.
3. An agent that no longer knows the job it had accepted, or was restarted in the middle of it, is asked anew, at most
   `ASKS_MAX` times; a reboot that was interrupted is not, since it may have happened.

Not guaranteed: exactly once for an action (reboot ...) on an agent that does not list its jobs with their RequestID.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lochness.agent_answers import is_gone
from lochness.agent_client import MistifyAgent
from lochness.errors import (
    AgentJobError,
    AmbiguousWriteError,
    DeadlineError,
    HTTPCodeError,
    LochnessError,
    UnavailableError,
)
from lochness_controller.workers.holding import HeldJob
from lochness_controller.workers.transitions import accepted

ASKS_MAX: Final = 3
RETRY_MIN_S: Final = 0.25
RETRY_MAX_S: Final = 5.0

#: The agent's word for a job that its own restart ended; and the actions that doing twice would do twice.
_INTERRUPTED: Final = "interrupted"
_NOT_REPEATED: Final = frozenset({"reboot", "restart"})

#: The agent, or what stands before it, says that asking later may help.
_LATER_CODES: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class AgentStep:
    """One step: `ask` sends the request and answers the agent's job id, `name` is the agent's word for the action."""

    name: str
    ask: Callable[[], str]
    limit_s: float
    limit_name: str


def carry_out(step: AgentStep, held: HeldJob, agent: MistifyAgent, *, is_doubtful: bool = False) -> None:
    """Return when the agent has done the step. `is_doubtful`: somebody may have asked for it already.

    Raises AgentJobError with the agent's message, HTTPCodeError for what asking again can not help (404: the agent does
    not know the guest), DeadlineError, NotFoundError and ValidationError when something the request is built of is
    missing, JobLeftError.
    """
    _Attempts(step, held, agent, is_doubtful).run()


class _Attempts:
    """The tries of one step."""

    def __init__(self, step: AgentStep, held: HeldJob, agent: MistifyAgent, is_doubtful: bool) -> None:
        self._step = step
        self._held = held
        self._agent = agent
        self._deadline_s = time.monotonic() + step.limit_s
        self._asks = 0
        self._remote = held.job.remote
        self._is_doubtful = is_doubtful

    def run(self) -> None:
        retry_s = RETRY_MIN_S
        problem: LochnessError | None = None
        while True:
            try:
                if not self._remote:
                    self._ask()
                if self._has_ended():
                    return
                problem = None
            except (UnavailableError, AmbiguousWriteError) as error:
                problem = error
                self._is_doubtful = True
            except HTTPCodeError as error:
                if error.code not in _LATER_CODES:
                    raise
                problem = error
            remaining_s = self._deadline_s - time.monotonic()
            if remaining_s <= 0:
                raise self._too_late(problem) from problem
            self._held.pause(min(retry_s, remaining_s))
            retry_s = min(retry_s * 2, RETRY_MAX_S)

    def _ask(self) -> None:
        remote = self._found() if self._is_doubtful else ""
        if not remote:
            self._asks += 1
            remote = self._step.ask()
        self._remote = remote
        self._is_doubtful = False
        self._held.save(accepted(self._held.job, remote))

    def _found(self) -> str:
        """The job the agent may have made of an earlier try; "" also when it can not tell."""
        try:
            return self._agent.find_job(self._held.job.guest, self._step.name, self._held.job.id)
        except HTTPCodeError:
            return ""

    def _has_ended(self) -> bool:
        remaining_s = max(0.0, self._deadline_s - time.monotonic())
        job = self._held.job
        try:
            self._agent.wait_job(job.guest, self._remote, limit_s=remaining_s, pause=self._held.pause)
        except DeadlineError:
            return False
        except HTTPCodeError as error:
            if not is_gone(error) or self._asks >= ASKS_MAX:
                raise
            return self._ask_anew()
        except AgentJobError as error:
            is_repeated = error.agent_reason == _INTERRUPTED and self._step.name not in _NOT_REPEATED
            if not is_repeated or self._asks >= ASKS_MAX:
                raise
            return self._ask_anew()
        return True

    def _ask_anew(self) -> bool:
        self._remote = ""
        self._is_doubtful = False
        return False

    def _too_late(self, problem: LochnessError | None) -> DeadlineError:
        step, job = self._step, self._held.job
        why = problem.message if problem else f"the agent's job {self._remote or '(none)'} has not ended"
        where = f" on hypervisor {job.hypervisor}" if job.hypervisor else ""
        return DeadlineError(
            f"{step.name}{where} has not ended within {step.limit_s:g} s ({step.limit_name}): {why}",
            limit_s=step.limit_s,
        )
