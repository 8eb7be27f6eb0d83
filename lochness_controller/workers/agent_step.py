"""How does an agent come to do one step of a job, exactly once in effect, whatever fails on the way?

    ask -> remember the agent's job id (`remote`) -> wait for that job's end

Invariants:
1. An agent that is away, busy or restarting is asked again, with back-off, until the step's limit; then the step fails
   with a DeadlineError that names the limit. However late it is, the agent is asked once.
2. When it is not known whether the agent has taken the step, its jobs are looked through first.
3. An agent that no longer knows the job it had accepted, or was restarted in the middle of it, is asked anew, at most
   `ASKS_MAX` times; a reboot that was interrupted is not, since it may have happened.
4. A job whose agent does not answer says so after TOLD_AFTER_S, once, with how long it is asked yet (`progress`).
5. A reboot is not asked for twice: where an agent can not tell whether it took it, the step fails and says so.
   Everything else is, done twice, the same as done once.

Not guaranteed: invariant 5 with an agent that forgets its jobs and then tells of none at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from lochness.agent_answers import AgentJob, is_gone
from lochness.agent_client import LONG_POLL_S
from lochness.agent_targets import AgentRequest
from lochness.errors import (
    AgentJobError,
    AmbiguousWriteError,
    DeadlineError,
    HTTPCodeError,
    LochnessError,
    UnavailableError,
)
from lochness.store.lookup import Lookup
from lochness_controller.workers.agent_calls import AgentCalls
from lochness_controller.workers.gates import Gates
from lochness_controller.workers.holding import HeldJob
from lochness_controller.workers.transitions import accepted, waiting

ASKS_MAX: Final = 3
RETRY_MIN_S: Final = 0.25
RETRY_MAX_S: Final = 5.0
#: An agent that does not wait is looked at so often, doubling from the first to the second.
POLL_MIN_S: Final = 0.05
POLL_MAX_S: Final = 1.0
#: The id of an agent's job is written down when the job does not end within this time.
NOTED_LIMIT_S: Final = 0.2

#: So long an agent may not answer before its job tells that.
TOLD_AFTER_S: Final = 5.0

#: The agent's word for a job that its own restart ended; and the actions that doing twice would do twice.
_INTERRUPTED: Final = "interrupted"
_NOT_REPEATED: Final = frozenset({"reboot", "restart"})

#: The agent, or what stands before it, says that asking later may help.
_LATER_CODES: Final = frozenset({429, 502, 503, 504})


T = TypeVar("T")

#: What one look brought: whether the agent waited for the job's end by itself, or is to be asked anew.
_Look = Literal["ended", "waited", "not waited", "anew"]


class OutcomeUnknownError(LochnessError):
    """The agent may or may not have done what must not be done twice."""

    reason = "outcome_unknown"


@dataclass(frozen=True, slots=True)
class AgentStep:
    """One step: `request` looks up what is asked, `name` is the agent's word for the action."""

    name: str
    request: Callable[[], Lookup[AgentRequest]]
    limit_s: float
    limit_name: str


async def carry_out(
    step: AgentStep, held: HeldJob, calls: AgentCalls, gates: Gates, *, is_doubtful: bool = False
) -> None:
    """Return when the agent has done the step. `is_doubtful`: somebody may have asked for it already.

    Raises AgentJobError with the agent's message, HTTPCodeError for what asking again can not help (404: the agent does
    not know the guest), DeadlineError, OutcomeUnknownError, NotFoundError and ValidationError when something the
    request is built of is missing, CancelRequestedError, JobLeftError.
    """
    await _Attempts(step, held, calls, gates, is_doubtful).run()


class _Attempts:
    """The tries of one step."""

    def __init__(self, step: AgentStep, held: HeldJob, calls: AgentCalls, gates: Gates, is_doubtful: bool) -> None:
        self._step = step
        self._held = held
        self._calls = calls
        self._gates = gates
        self._deadline_s = time.monotonic() + step.limit_s
        self._answered_at_s = time.monotonic()
        self._asks = 0
        self._remote = held.job.remote
        self._is_doubtful = is_doubtful

    @property
    def _remaining_s(self) -> float:
        return max(0.0, self._deadline_s - time.monotonic())

    async def run(self) -> None:
        retry_s, poll_s = RETRY_MIN_S, POLL_MIN_S
        problem: LochnessError | None = None
        while True:
            try:
                look = await self._attempt()
                self._note_answer()
                if look == "ended":
                    return
                problem, retry_s = None, RETRY_MIN_S
                pause_s = poll_s if look == "not waited" else 0.0
                poll_s = min(poll_s * 2, POLL_MAX_S)
            except (UnavailableError, AmbiguousWriteError, HTTPCodeError, DeadlineError) as error:
                if isinstance(error, HTTPCodeError) and error.code not in _LATER_CODES:
                    raise
                self._is_doubtful = self._is_doubtful or isinstance(error, AmbiguousWriteError | UnavailableError)
                problem, pause_s = error, retry_s
                retry_s = min(retry_s * 2, RETRY_MAX_S)
            if self._remaining_s <= 0:
                raise self._too_late(problem) from problem
            if problem is not None:
                await self._tell(problem)
            await self._held.pause(min(pause_s, self._remaining_s))

    @property
    def _turn_limit_s(self) -> float:
        """So long a request waits for its turn: who waits at a closed gate comes out to tell it, once."""
        return self._remaining_s if self._held.job.progress else min(self._remaining_s, TOLD_AFTER_S)

    def _note_answer(self) -> None:
        self._answered_at_s = time.monotonic()
        if self._held.job.progress:
            self._held.note(waiting(self._held.job, ""))

    async def _tell(self, problem: LochnessError) -> None:
        """Say in the job why nothing comes of it, unless that was done."""
        silent_s = time.monotonic() - self._answered_at_s
        if self._held.job.progress or silent_s < TOLD_AFTER_S:
            return
        limits = f"until the step's limit of {self._step.limit_s:g} s ({self._step.limit_name})"
        await self._held.save(waiting(self._held.job, f"{problem.message}; it is asked again {limits}"))

    async def _attempt(self) -> _Look:
        """Ask unless that was done, and look once."""
        request = await self._held.look_up(self._step.request())
        if not self._remote:
            await self._ask(request)
        wait_s = min(self._remaining_s, LONG_POLL_S)
        asked_s = time.monotonic()
        try:
            job = await self._looked(request, wait_s)
            if job.has_ended(self._remote):
                return "ended"
        except HTTPCodeError as error:
            if not is_gone(error) or self._asks >= ASKS_MAX:
                raise
            if self._step.name in _NOT_REPEATED:
                raise self._unknown() from error
            return self._ask_anew()
        except AgentJobError as error:
            is_repeated = error.agent_reason == _INTERRUPTED and self._step.name not in _NOT_REPEATED
            if not is_repeated or self._asks >= ASKS_MAX:
                raise
            return self._ask_anew()
        return "waited" if time.monotonic() - asked_s > wait_s / 2 else "not waited"

    async def _ask(self, request: AgentRequest) -> None:
        remote = await self._send(request, lambda: self._found(request)) if self._is_doubtful else ""
        if not remote:
            self._held.check_cancel()
            self._asks += 1
            remote = await self._send(request, lambda: self._calls.ask(request, self._held.job.id))
        self._remote = remote
        self._is_doubtful = False
        self._held.note(accepted(self._held.job, remote))
        if self._step.name in _NOT_REPEATED:
            await self._held.save(self._held.job)

    async def _looked(self, request: AgentRequest, wait_s: float) -> AgentJob:
        """The agent's job. Its id is written down when it does not end at once: most do, and who takes the step up
        before that asks the agent whether it has taken our request."""
        calls, held, remote = self._calls, self._held, self._remote
        looking = asyncio.ensure_future(
            self._send(request, lambda: held.unless_cancelled(calls.look(request.target, remote, wait_s)))
        )
        try:
            await asyncio.wait((looking,), timeout=NOTED_LIMIT_S if held.is_noted else None)
            if held.is_noted and not (looking.done() and _has_ended(looking, remote)):
                await held.save(held.job)
            return await looking
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _send(self, request: AgentRequest, call: Callable[[], Awaitable[T]]) -> T:
        """One request, when it is this job's turn."""
        gate = self._gates.of(request.target.hypervisor)
        with gate.asking(await self._held.unless_cancelled(gate.enter(self._turn_limit_s))):
            return await call()

    async def _found(self, request: AgentRequest) -> str:
        """The job the agent may have made of an earlier try; "" when there is none, or when asking twice is no harm."""
        job_id = self._held.job.id
        try:
            jobs = await self._calls.jobs_of(request.target, self._held.job.guest)
        except HTTPCodeError as error:
            if error.code in _LATER_CODES:
                raise
            if self._step.name in _NOT_REPEATED:
                raise self._unknown() from error
            return ""
        same = [job for job in jobs if job.Action == self._step.name]
        found = next((job.ID for job in same if job.RequestID == job_id), "")
        if not found and self._step.name in _NOT_REPEATED and not _tells_requests(same):
            raise self._unknown()
        return found

    def _unknown(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the agent of hypervisor {self._held.job.hypervisor} may have taken this {self._step.name} and can not "
            "tell; it is not asked for a second time"
        )

    def _ask_anew(self) -> _Look:
        self._remote = ""
        self._is_doubtful = False
        return "anew"

    def _too_late(self, problem: LochnessError | None) -> DeadlineError:
        step, job = self._step, self._held.job
        why = problem.message if problem else f"the agent's job {self._remote or '(none)'} has not ended"
        where = f" on hypervisor {job.hypervisor}" if job.hypervisor else ""
        return DeadlineError(
            f"{step.name}{where} has not ended within {step.limit_s:g} s ({step.limit_name}): {why}",
            limit_s=step.limit_s,
        )


def _has_ended(looking: asyncio.Future[AgentJob], remote: str) -> bool:
    """Whether the look that is done showed the job's good end."""
    return looking.exception() is None and looking.result().has_ended(remote)


def _tells_requests(jobs: list[AgentJob]) -> bool:
    """Whether these jobs name their requests. None at all: the agent has none, and so has not taken ours."""
    return all(job.RequestID for job in jobs)
