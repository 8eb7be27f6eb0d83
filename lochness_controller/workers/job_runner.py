"""How is one job carried out, from whatever state it is found in to its end?

    select-hypervisor (the scheduler's) -> fetch -> create -> done
    delete -> done          shutdown, start ... -> done

Invariants:
1. A job ends as done or error, or stays unfinished in the store for whoever takes it up next; never in between.
2. A guest's record, binding and address are released only after its agent has said that the guest is gone there, or
   when there is no agent to ask: never placed, or its hypervisor is not registered any more.
3. What a delete releases, it releases in one transaction with the end of the job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lochness import events, keys
from lochness.agent_answers import is_gone
from lochness.agent_client import MistifyAgent
from lochness.clock import Clock
from lochness.errors import ConflictError, HTTPCodeError, LochnessError, NotFoundError, UnavailableError
from lochness.log import get_logger
from lochness.model.guest import GuestRecord
from lochness.model.job import CREATE, DELETE, FETCH, GUEST_ACTIONS
from lochness.store.protocol import Key, KeyValue, Store
from lochness.transactions import destroy_guest
from lochness_controller.settings import ControllerSettings
from lochness_controller.workers.agent_step import AgentStep, carry_out
from lochness_controller.workers.holding import HeldJob, JobLeftError, JobLostError, StoppingError
from lochness_controller.workers.transitions import claimed, done, failed, moved_on

#: How often a delete begins anew because its guest's record changed meanwhile.
DELETE_ATTEMPTS_MAX: Final = 10

_log = get_logger("workers")


class NotReleasedError(LochnessError):
    """A delete failed on the hypervisor, so that its guest keeps all it has. `reason` is that of what went wrong."""

    def __init__(self, why: LochnessError, hypervisor: str) -> None:
        super().__init__(
            f"{why.message}; the guest may still run on hypervisor {hypervisor}: nothing was released, "
            "delete it again later"
        )
        self.reason = why.reason  # type: ignore[misc]  # that of this one occurrence


class JobRunner:
    """Carries out jobs as the controller `worker`. Safe to share between threads, a job each."""

    def __init__(
        self, store: Store, agent: MistifyAgent, settings: ControllerSettings, clock: Clock, worker: str
    ) -> None:
        self._store = store
        self._agent = agent
        self._settings = settings
        self._clock = clock
        self._worker = worker

    def run(self, held: HeldJob) -> None:
        """Carry the job out, to its end unless it is left to another try. Raises StoreAwayError: later."""
        log = _log.bind(job=held.job.id, guest=held.job.guest)
        # A step that was begun before now may have reached the agent; fetching twice does no harm.
        is_doubtful = held.job.status == "working" and held.job.action != FETCH
        try:
            if held.job.worker not in ("", self._worker):
                log.info(events.JOB_RESUMED, action=held.job.action, before=held.job.worker)
            if held.job.worker != self._worker or held.job.status == "new":
                held.save(claimed(held.job, self._worker, self._clock.now()))
            log.info(events.JOB_STARTED, action=held.job.action, request=held.job.request)
            while not held.job.is_finished:
                action = held.job.action
                self._run_step(held, is_doubtful)
                is_doubtful = False
                log.info(events.JOB_STEP_FINISHED, action=action)
        except StoppingError:
            return
        except JobLostError as error:
            log.info(events.JOB_LOST, error=str(error))
            return
        if held.job.status == "error":
            log.warning(events.JOB_FAILED, action=held.job.action, error=held.job.error, reason=held.job.reason)
        else:
            log.info(events.JOB_FINISHED, request=held.job.request)

    def _run_step(self, held: HeldJob, is_doubtful: bool) -> None:
        """One step, and its outcome saved."""
        try:
            self._step_of(held.job.action)(held, is_doubtful)
        except JobLeftError:
            raise
        except LochnessError as error:
            held.save(failed(held.job, error.message, error.reason, self._clock.now()))
        except Exception as error:  # the pass boundary: a fault of ours fails this job, not the others
            _log.exception(events.PASS_FAILED, job=held.job.id, guest=held.job.guest, action=held.job.action)
            text = f"internal error: {type(error).__name__} (the controller's log has the details)"
            held.save(failed(held.job, text, LochnessError.reason, self._clock.now()))

    def _step_of(self, action: str) -> Callable[[HeldJob, bool], None]:
        match action:
            case "fetch":
                return self._fetch
            case "create":
                return self._create
            case "delete":
                return self._delete
            case _:
                return self._act

    def _fetch(self, held: HeldJob, is_doubtful: bool) -> None:
        job = held.job

        def ask() -> str:
            return self._agent.fetch_image(job.guest, request_id=job.id)

        self._carry_out(held, "fetchImage", ask, "fetch_limit_s", is_doubtful)
        held.save(moved_on(held.job, CREATE, self._clock.now(), message="the image is there"))

    def _create(self, held: HeldJob, is_doubtful: bool) -> None:
        job = held.job

        def ask() -> str:
            return self._agent.create_guest(job.guest, request_id=job.id)

        self._carry_out(held, CREATE, ask, "create_limit_s", is_doubtful)
        held.save(done(held.job, self._clock.now()))

    def _act(self, held: HeldJob, is_doubtful: bool) -> None:
        job = held.job
        if job.action not in GUEST_ACTIONS:
            raise NotFoundError("action", job.action, field="action")

        def ask() -> str:
            return self._agent.guest_action(job.guest, job.action, request_id=job.id)

        self._carry_out(held, job.action, ask, "action_limit_s", is_doubtful)
        held.save(done(held.job, self._clock.now()))

    def _delete(self, held: HeldJob, is_doubtful: bool) -> None:
        for _ in range(DELETE_ATTEMPTS_MAX):
            item = self._guest_item(held)
            if item is None:
                held.save(done(held.job, self._clock.now(), message="the guest was gone already"))
                return
            guest = GuestRecord.from_json(item.value)
            message = self._remove_from_hypervisor(held, guest, is_doubtful)
            finished = done(held.job, self._clock.now(), message=message)
            try:
                held.save(finished, also=destroy_guest(guest, item.mod_revision))
            except ConflictError:
                continue  # the guest's record changed meanwhile: look again, it may have been placed
            return
        raise ConflictError(
            f"guest {held.job.guest} changed {DELETE_ATTEMPTS_MAX} times while it was being deleted",
            reason="delete_contended",
        )

    def _remove_from_hypervisor(self, held: HeldJob, guest: GuestRecord, is_doubtful: bool) -> str:
        """Have the agent delete the guest; answers in a few words how it went."""
        if not guest.hypervisor:
            return "the guest was never placed"

        def ask() -> str:
            return self._agent.delete_guest(guest.id, request_id=held.job.id)

        try:
            self._carry_out(held, DELETE, ask, "delete_limit_s", is_doubtful)
        except HTTPCodeError as error:
            if not is_gone(error):
                raise NotReleasedError(error, guest.hypervisor) from error
            return f"the agent on hypervisor {guest.hypervisor} did not know the guest"
        except NotFoundError as error:
            if error.kind == "guest":
                return "its record went away meanwhile"  # the transaction sees to it
            if error.kind != "hypervisor":
                raise NotReleasedError(error, guest.hypervisor) from error
            return f"hypervisor {guest.hypervisor} is not registered any more, its agent was not asked"
        except LochnessError as error:
            raise NotReleasedError(error, guest.hypervisor) from error
        return f"deleted on hypervisor {guest.hypervisor}"

    def _carry_out(self, held: HeldJob, name: str, ask: Callable[[], str], limit_name: str, is_doubtful: bool) -> None:
        step = AgentStep(name, ask, getattr(self._settings, limit_name), limit_name)
        carry_out(step, held, self._agent, is_doubtful=is_doubtful)

    def _guest_item(self, held: HeldJob) -> KeyValue | None:
        """The guest's record. A store that is away is waited for as long as a delete may take."""
        key = Key(keys.guest(held.job.guest))
        waited_s, pause_s = 0.0, 0.5
        while True:
            try:
                return self._store.read(key).one()
            except UnavailableError:
                if waited_s >= self._settings.delete_limit_s:
                    raise
            held.pause(pause_s)
            waited_s += pause_s
