"""How is one job carried out, from whatever state it is found in to its end?

    select-hypervisor (the scheduler's) -> fetch -> create -> done
    delete -> done          shutdown, start ... -> done
    a create that failed -> undo -> error

Invariants:
1. A job ends as done or error, or stays unfinished in the store for whoever takes it up next; never in between.
2. A create that fails gives back all it has claimed, or says what is left and why.
3. A step that TAKE_UPS_MAX controllers have taken up, and none of them finished, fails: what ends a controller each
   time must not do so for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from lochness import agent_targets, events
from lochness.agent_targets import AgentDefaults, AgentRequest
from lochness.clock import Clock
from lochness.errors import LochnessError, NotFoundError
from lochness.log import get_logger
from lochness.model.job import CREATE, FETCH, GUEST_ACTIONS
from lochness.store.lookup import Lookup
from lochness_controller.settings import ControllerSettings
from lochness_controller.workers.agent_calls import AgentCalls
from lochness_controller.workers.agent_step import AgentStep, carry_out
from lochness_controller.workers.gates import Gates
from lochness_controller.workers.holding import CancelRequestedError, HeldJob, JobLeftError, JobLostError
from lochness_controller.workers.removal import Removal
from lochness_controller.workers.transitions import claimed, done, failed, moved_on, undoing

TAKE_UPS_MAX: Final = 20

_log = get_logger("workers")


class TakenUpTooOftenError(LochnessError):
    """No controller lived long enough to finish the step."""

    reason = "taken_up_too_often"


class FaultError(LochnessError):
    """A fault of ours; the log has its traceback."""

    def __init__(self, fault: Exception) -> None:
        super().__init__(f"internal error: {type(fault).__name__} (the controller's log has the details)")


class JobRunner:
    """Carries out jobs as the controller `worker`. Used on one event loop, by any number of jobs at a time."""

    def __init__(
        self,
        calls: AgentCalls,
        gates: Gates,
        settings: ControllerSettings,
        clock: Clock,
        worker: str,
    ) -> None:
        self._calls = calls
        self._gates = gates
        self._settings = settings
        self._agents = AgentDefaults(settings.agent_port, settings.agent_access.scheme)
        self._clock = clock
        self._worker = worker
        self._removal = Removal(calls, gates, settings, clock)

    async def run(self, held: HeldJob, *, ended_by: LochnessError | None = None) -> None:
        """Carry the job out, to its end unless it is left to another try; `ended_by` is why it is to fail at once.

        A job that has ended meanwhile is left as it is. Raises StoreAwayError: later.
        """
        if held.job.is_finished:
            return
        log = _log.bind(job=held.job.id, guest=held.job.guest)
        # A step that was begun before now may have reached the agent; fetching twice does no harm.
        is_doubtful = held.job.status == "working" and held.job.action != FETCH
        try:
            if held.job.worker not in ("", self._worker):
                log.info(events.JOB_RESUMED, action=held.job.action, before=held.job.worker)
            if held.job.worker != self._worker or held.job.status == "new":
                await held.save(claimed(held.job, self._worker, self._clock.now()))
            log.info(events.JOB_STARTED, action=held.job.action, request=held.job.request)
            while not held.job.is_finished:
                action = held.job.action
                await self._run_step(held, is_doubtful, ended_by)
                is_doubtful = False
                if not held.job.is_finished:
                    log.info(events.JOB_STEP_FINISHED, action=action, next=held.job.action)
        except JobLostError as error:
            log.info(events.JOB_LOST, error=str(error))
            return
        if held.job.status == "done":
            log.info(events.JOB_FINISHED, request=held.job.request)
        elif held.job.reason == CancelRequestedError.reason:
            log.info(events.JOB_CANCELLED, action=held.job.action)
        else:
            log.warning(events.JOB_FAILED, action=held.job.action, error=held.job.error, reason=held.job.reason)

    async def _run_step(self, held: HeldJob, is_doubtful: bool, ended_by: LochnessError | None) -> None:
        """One step, and its outcome saved."""
        try:
            if held.job.error:
                await self._removal.undo(held, is_doubtful)
                return
            if ended_by is not None:
                raise ended_by
            held.check_cancel()
            if held.job.take_ups > TAKE_UPS_MAX:
                raise TakenUpTooOftenError(f"{held.job.take_ups} controllers have begun {held.job.action}, and ended")
            await self._step(held, is_doubtful)
        except JobLeftError:
            raise
        except LochnessError as error:
            await self._fail(held, self._told(held, error), error.reason)
        except Exception as error:  # the pass boundary: a fault of ours fails this job, not the others
            _log.exception(events.PASS_FAILED, job=held.job.id, guest=held.job.guest, action=held.job.action)
            await self._fail(held, FaultError(error).message, FaultError.reason)

    async def _fail(self, held: HeldJob, error: str, reason: str) -> None:
        now = self._clock.now()
        if held.job.action in (FETCH, CREATE) and not held.job.error:
            await held.save(undoing(held.job, error, reason, now))
        else:
            text = f"{held.job.error}; it could not be undone: {error}" if held.job.error else error
            await held.save(failed(held.job, text, held.job.reason or reason, now))

    def _told(self, held: HeldJob, error: LochnessError) -> str:
        """The error's text; for an action that the agent goes on with, that it does."""
        if isinstance(error, CancelRequestedError) and held.job.remote and held.job.action in GUEST_ACTIONS:
            return f"{error.message}; the agent goes on with it by itself, as its job {held.job.remote}"
        return error.message

    async def _step(self, held: HeldJob, is_doubtful: bool) -> None:
        job = held.job
        match job.action:
            case "fetch":
                await self._carry_out(held, "fetchImage", agent_targets.image_fetch, "fetch_limit_s", False)
                await held.save(moved_on(held.job, CREATE, self._clock.now(), message="the image is there"))
            case "create":
                await self._carry_out(held, CREATE, agent_targets.creation, "create_limit_s", is_doubtful)
                await held.save(done(held.job, self._clock.now()))
            case "delete":
                await self._removal.delete(held, is_doubtful)
            case action if action in GUEST_ACTIONS:

                def asked(guest_id: str, agents: AgentDefaults) -> Lookup[AgentRequest]:
                    return agent_targets.action(guest_id, job.action, agents)

                await self._carry_out(held, job.action, asked, "action_limit_s", is_doubtful)
                await held.save(done(held.job, self._clock.now()))
            case action:
                raise NotFoundError("action", action, field="action")

    async def _carry_out(
        self,
        held: HeldJob,
        name: str,
        request: Callable[[str, AgentDefaults], Lookup[AgentRequest]],
        limit_name: str,
        is_doubtful: bool,
    ) -> None:
        asked = partial(request, held.job.guest, self._agents)
        step = AgentStep(name, asked, getattr(self._settings, limit_name), limit_name)
        await carry_out(step, held, self._calls, self._gates, is_doubtful=is_doubtful)
