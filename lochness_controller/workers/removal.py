"""How does a guest leave its hypervisor, for a delete and for a create that failed?

Invariants:
1. A guest's record, binding and address are released only after its agent has said that the guest is gone there, or
   when there is no agent to ask: never placed, its hypervisor not registered any more, or the delete was forced.
2. What is released is released in one transaction with the end of the job.
3. A failed create's guest is looked for after its delete: the order to create it may have come to the agent later.
4. A forced delete asks the agent too, if only for `force_limit_s`, and says what may be left when it has no answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from lochness import agent_targets, events, keys
from lochness.agent_answers import is_gone
from lochness.agent_targets import AgentDefaults, AgentTarget
from lochness.clock import Clock
from lochness.errors import (
    AmbiguousWriteError,
    ConflictError,
    DeadlineError,
    HTTPCodeError,
    LochnessError,
    NotFoundError,
    UnavailableError,
)
from lochness.log import get_logger
from lochness.model.guest import GuestRecord
from lochness.model.job import CREATE, DELETE, FETCH, JobRecord
from lochness.store.protocol import KeyValue
from lochness.transactions import Transaction, destroy_guest, release_guest
from lochness_controller.settings import ControllerSettings
from lochness_controller.workers.agent_calls import AgentCalls
from lochness_controller.workers.agent_step import AgentStep, carry_out
from lochness_controller.workers.gates import Gates
from lochness_controller.workers.holding import HeldJob
from lochness_controller.workers.transitions import accepted, done, undone

#: How often a release begins anew because its guest's record changed meanwhile.
RELEASE_ATTEMPTS_MAX: Final = 10
#: An agent's words for a job that has not ended.
_UNFINISHED: Final = ("Queued", "Running")
#: How often a guest is deleted once more when a create that came late made it again.
UNDO_DELETES_MAX: Final = 3
_RETRY_MIN_S: Final = 0.25
_RETRY_MAX_S: Final = 5.0

#: How the job ends, and what is done with the guest's record in the same transaction; None: nothing.
_End: TypeAlias = tuple[JobRecord, Callable[[GuestRecord, int], Transaction] | None]

_log = get_logger("workers")


class NotReleasedError(LochnessError):
    """A delete failed on the hypervisor, so that its guest keeps all it has. `reason` is that of what went wrong."""

    def __init__(self, why: LochnessError, hypervisor: str) -> None:
        super().__init__(
            f"{why.message}; the guest may still run on hypervisor {hypervisor}: nothing was released, "
            "delete it again later"
        )
        self.reason = why.reason  # type: ignore[misc]  # that of this one occurrence


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the hypervisor's part came to: in a few words, and whether the guest is known to be gone there."""

    message: str
    is_gone: bool = True


class Removal:
    """Deletes guests and undoes creates. Used on one event loop."""

    def __init__(self, calls: AgentCalls, gates: Gates, settings: ControllerSettings, clock: Clock) -> None:
        self._calls = calls
        self._gates = gates
        self._settings = settings
        self._agents = AgentDefaults(settings.agent_port, settings.agent_access.scheme)
        self._clock = clock

    async def delete(self, held: HeldJob, is_doubtful: bool) -> None:
        """The whole of a delete job. Raises NotReleasedError, JobLeftError."""

        async def removed(guest: GuestRecord) -> _End:
            outcome = await self._forced(held, guest) if held.job.force else await self._asked(held, guest, is_doubtful)
            held.is_cancellable = False
            return done(held.job, self._clock.now(), message=outcome.message), destroy_guest

        if not await self._release(held, removed):
            await held.save(done(held.job, self._clock.now(), message="the guest was gone already"))

    async def undo(self, held: HeldJob, is_doubtful: bool) -> None:
        """Give back what the failed create of `held` (transitions.undoing) has claimed, and end the job."""
        held.is_cancellable = False

        async def removed(guest: GuestRecord) -> _End:
            outcome = await self._taken_back(held, guest, is_doubtful)
            log = _log.bind(job=held.job.id, guest=guest.id, hypervisor=guest.hypervisor)
            now, is_left = self._clock.now(), not outcome.is_gone
            (log.warning if is_left else log.info)(events.JOB_UNDONE, outcome=outcome.message)
            return undone(held.job, outcome.message, now, is_left=is_left), None if is_left else release_guest

        if not await self._release(held, removed):
            await held.save(undone(held.job, "its record is gone", self._clock.now()))

    async def _release(self, held: HeldJob, removed: Callable[[GuestRecord], Awaitable[_End]]) -> bool:
        """End the job as `removed` says, with its transaction on the guest as it is then; False: there is no guest."""
        for _ in range(RELEASE_ATTEMPTS_MAX):
            item = await self._guest_item(held)
            if item is None:
                return False
            guest = GuestRecord.from_json(item.value)
            job, release = await removed(guest)
            try:
                if release is None:
                    await held.save(job)
                else:
                    await held.save(job, also=release(guest, item.mod_revision))
            except ConflictError:
                continue  # the guest's record changed meanwhile: look again, it may have been placed
            return True
        raise ConflictError(
            f"guest {held.job.guest} changed {RELEASE_ATTEMPTS_MAX} times while it was being released",
            reason="release_contended",
        )

    async def _asked(self, held: HeldJob, guest: GuestRecord, is_doubtful: bool) -> _Outcome:
        try:
            return await self._gone(held, guest, "delete_limit_s", is_doubtful)
        except LochnessError as error:
            raise NotReleasedError(error, guest.hypervisor) from error

    async def _forced(self, held: HeldJob, guest: GuestRecord) -> _Outcome:
        try:
            return await self._gone(held, guest, "force_limit_s", True)
        except LochnessError as error:
            return _Outcome(
                f"released by force, hypervisor {guest.hypervisor} did not confirm it ({error.message}): the domain "
                f"{guest.id} and its disks may be left there, and use its address {guest.ip or '(none)'} while it runs",
                is_gone=False,
            )

    async def _taken_back(self, held: HeldJob, guest: GuestRecord, is_doubtful: bool) -> _Outcome:
        if not guest.hypervisor:
            return _Outcome("nothing was claimed")
        released = f"its place on hypervisor {guest.hypervisor} and its address {guest.ip} were released"
        if held.job.action == FETCH:
            return _Outcome(f"{released}, nothing had been made there")
        try:
            outcome = await self._gone(held, guest, "undo_limit_s", is_doubtful)
            for _ in range(UNDO_DELETES_MAX):
                if not await self._is_there_all_the_same(held, guest):
                    return _Outcome(f"{released}, {outcome.message}")
                await held.save(accepted(held.job, ""))
                outcome = await self._gone(held, guest, "undo_limit_s", False)
            raise ConflictError(f"its agent has it again after {UNDO_DELETES_MAX + 1} deletes")
        except LochnessError as error:
            return _Outcome(
                f"hypervisor {guest.hypervisor} and address {guest.ip} stay claimed, the guest may be there "
                f"({error.message}): delete the guest to release them",
                is_gone=False,
            )

    async def _is_there_all_the_same(self, held: HeldJob, guest: GuestRecord) -> bool:
        """Whether the agent has the guest after its delete: the create may have reached it later than that.

        Waits for a create that is under way. Raises DeadlineError after `undo_limit_s`.
        """
        deadline_s = time.monotonic() + self._settings.undo_limit_s
        gate = self._gates.of(guest.hypervisor)
        while True:
            try:
                target = await held.look_up(agent_targets.target_of(guest.id, self._agents))
                with gate.asking(await gate.enter(max(0.0, deadline_s - time.monotonic()))):
                    if not await self._is_creating(target, guest):
                        return await self._calls.knows(target, guest.id)
                problem = "its agent is still creating it"
            except (UnavailableError, AmbiguousWriteError, HTTPCodeError) as error:
                problem = error.message
            except NotFoundError:
                return False  # its hypervisor or its record went away meanwhile
            if time.monotonic() >= deadline_s:
                raise DeadlineError(f"{problem}, {self._settings.undo_limit_s:g} s after its delete (undo_limit_s)")
            await asyncio.sleep(_RETRY_MIN_S)

    async def _is_creating(self, target: AgentTarget, guest: GuestRecord) -> bool:
        try:
            jobs = await self._calls.jobs_of(target, guest.id)
        except HTTPCodeError as error:
            if is_gone(error):
                return False  # it tells of the jobs of guests that it has, and of no others
            raise
        return any(job.Action == CREATE and job.Status in _UNFINISHED for job in jobs)

    async def _gone(self, held: HeldJob, guest: GuestRecord, limit_name: str, is_doubtful: bool) -> _Outcome:
        """Have the agent delete the guest. Raises what carry_out raises, and nothing when the guest is gone."""
        if not guest.hypervisor:
            return _Outcome("the guest was never placed")
        request = partial(agent_targets.action, guest.id, DELETE, self._agents)
        step = AgentStep(DELETE, request, getattr(self._settings, limit_name), limit_name)
        try:
            await carry_out(step, held, self._calls, self._gates, is_doubtful=is_doubtful)
        except HTTPCodeError as error:
            if not is_gone(error):
                raise
            return _Outcome(f"the agent on hypervisor {guest.hypervisor} did not know the guest")
        except NotFoundError as error:
            if error.kind == "guest":
                return _Outcome("its record went away meanwhile")  # the transaction sees to it
            if error.kind != "hypervisor":
                raise
            return _Outcome(f"hypervisor {guest.hypervisor} is not registered any more, its agent was not asked")
        return _Outcome(f"deleted on hypervisor {guest.hypervisor}")

    async def _guest_item(self, held: HeldJob) -> KeyValue | None:
        """The guest's record. A store that is away is waited for as long as a delete may take."""
        deadline_s = time.monotonic() + self._settings.delete_limit_s
        pause_s = _RETRY_MIN_S
        while True:
            try:
                return await held.read(keys.guest(held.job.guest))
            except UnavailableError:
                if time.monotonic() >= deadline_s:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _RETRY_MAX_S)
