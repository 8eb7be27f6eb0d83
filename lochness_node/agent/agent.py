"""What becomes of a request, once it is known to be well-formed? The agent without HTTP.

1. A create, a fetch and a delete are idempotent by id: asked again while under way they are the same job, asked again
   afterwards they find it done. Whatever is asked again under the same request id is done once.
2. What a request asks of a guest that is not here is refused at once, except a delete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import msgspec

from lochness import events
from lochness.errors import LochnessError, NotFoundError
from lochness.identity import GuestID
from lochness.log import get_logger
from lochness.model.record import Metadata
from lochness_node.agent.guests import metadata, snapshots
from lochness_node.agent.guests.console import ConsolePart, read_console
from lochness_node.agent.guests.create import create_guest
from lochness_node.agent.guests.decide_snapshots import Snapshot, requested_name
from lochness_node.agent.guests.download import Download, stage_snapshot
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.host_metadata import parse_patch
from lochness_node.agent.guests.power import perform_action
from lochness_node.agent.guests.show import MISSING, show_guest, show_guests, show_metrics, shown
from lochness_node.agent.jobs.registry import JobRegistry, Progress, Worker
from lochness_node.agent.wire import (
    ACTIONS,
    AGENT,
    CREATE,
    CREATE_SNAPSHOT,
    DELETE,
    DELETE_SNAPSHOT,
    FETCH_IMAGE,
    ROLLBACK_SNAPSHOT,
    AgentJob,
    Guest,
    Image,
    ImageRequest,
)
from lochness_node.driver.protocol import Metrics


class Agent:
    """The work behind the API. Safe to share between threads; every method may block on libvirt or the disk.

    `health` answers what is wrong, "" when nothing is.
    """

    def __init__(self, host: Host, jobs: JobRegistry, health: Callable[[], str]) -> None:
        self.jobs = jobs
        self.health = health
        self._host = host
        self._log = get_logger("agent")

    def guests(self) -> list[Guest]:
        return show_guests(self._host)

    def guest(self, guest_id: GuestID) -> Guest:
        """Raises NotFoundError."""
        return show_guest(self._host, guest_id)

    def create(self, body: bytes, request_id: str) -> tuple[Guest, AgentJob]:
        """The guest as it was asked for and the job that makes it. Raises ValidationError, UnavailableError."""
        guest = Guest.from_json(body)
        guest.validate()
        guest.state = ""
        job = self.jobs.submit(
            action=CREATE,
            guest_id=guest.id,
            request=guest.to_json().decode(),
            request_id=request_id,
        )
        answer = Guest.from_fields(guest.to_fields())
        with contextlib.suppress(LochnessError):  # the job was taken; where libvirt is away its state is just not known
            answer = shown(self._host, GuestID(guest.id), answer, self._host.domain(GuestID(guest.id)))
        return answer, job

    def act(self, guest_id: GuestID, action: str, request_id: str) -> tuple[Guest, AgentJob]:
        """The guest as it is and the job that does `action` to it. Raises NotFoundError, UnavailableError."""
        if action not in ACTIONS:
            raise NotFoundError("action", action)
        try:
            guest = self.guest(guest_id)
        except LochnessError:
            # A delete needs nothing to be here, nor libvirt to answer now; other actions may follow a create under way.
            if action != DELETE and not self.jobs.has_unfinished(guest_id):
                raise
            guest = Guest(id=guest_id, state=MISSING)
        job = self.jobs.submit(
            action=action,
            guest_id=guest_id,
            request_id=request_id,
        )
        return guest, job

    # ------------------------------------------------------------------------------------------ metadata and metrics

    def host_metadata(self) -> Metadata:
        return self._host.metadata.read()

    def patch_host_metadata(self, body: bytes) -> Metadata:
        """The whole afterwards. Raises ValidationError, UnavailableError."""
        return self._host.metadata.patch(parse_patch(body))

    def guest_metadata(self, guest_id: GuestID) -> Metadata:
        """Raises NotFoundError."""
        return metadata.guest_metadata(self._host, guest_id)

    def patch_guest_metadata(self, guest_id: GuestID, body: bytes) -> Metadata:
        """The whole afterwards. Raises NotFoundError, ValidationError, UnavailableError, DeadlineError."""
        return metadata.patch_guest_metadata(self._host, guest_id, parse_patch(body))

    def metrics(self, guest_id: GuestID) -> Metrics:
        """The counters of the guest's own disks and interfaces. Raises NotFoundError."""
        return show_metrics(self._host, guest_id)

    def console(self, guest_id: GuestID, *, since: int | None, limit_bytes: int) -> ConsolePart:
        """What the guest wrote to its serial console. Raises NotFoundError, UnavailableError, DriverError."""
        return read_console(self._host, guest_id, since=since, limit_bytes=limit_bytes)

    # ------------------------------------------------------------------------------------------------------ snapshots

    def snapshots(self, guest_id: GuestID, disk: str) -> list[Snapshot]:
        """Of the whole guest, or of `disk`. Raises NotFoundError, ConflictError, DriverError."""
        return snapshots.list_snapshots(self._host, guest_id, disk)

    def snapshot(self, guest_id: GuestID, disk: str, name: str) -> Snapshot:
        """Raises NotFoundError, ConflictError, DriverError."""
        return snapshots.get_snapshot(self._host, guest_id, disk, name)

    def create_snapshot(self, guest_id: GuestID, disk: str, body: bytes, request_id: str) -> tuple[Guest, AgentJob]:
        """The guest and the job. Raises ValidationError, NotFoundError, ConflictError, UnavailableError."""
        name = requested_name(body, self._host.clock.now())
        return self._snapshot_job(CREATE_SNAPSHOT, guest_id, disk, name, request_id)

    def delete_snapshot(self, guest_id: GuestID, disk: str, name: str, request_id: str) -> tuple[Guest, AgentJob]:
        """The guest and the job. Raises NotFoundError, ConflictError, UnavailableError."""
        return self._snapshot_job(DELETE_SNAPSHOT, guest_id, disk, name, request_id)

    def roll_back(self, guest_id: GuestID, disk: str, name: str, request_id: str) -> tuple[Guest, AgentJob]:
        """The guest and the job. Raises NotFoundError, ConflictError, UnavailableError."""
        return self._snapshot_job(ROLLBACK_SNAPSHOT, guest_id, disk, name, request_id)

    def download(self, guest_id: GuestID, disk: str, name: str) -> Download:
        """Raises NotFoundError, ConflictError, UnavailableError, DriverError."""
        return stage_snapshot(self._host, guest_id, disk, name)

    def _snapshot_job(
        self,
        action: str,
        guest_id: GuestID,
        disk: str,
        name: str,
        request_id: str,
    ) -> tuple[Guest, AgentJob]:
        guest = self.guest(guest_id)
        snapshots.guest_disks(self._host, guest_id).chosen(disk)  # a disk that is not there is refused at once
        job = self.jobs.submit(
            # With the name, as jobs are the same only when they do the same.
            action=f"{action} {disk}/{name}" if disk else f"{action} {name}",
            guest_id=guest_id,
            request=msgspec.json.encode({"disk": disk, "name": name}).decode(),
            request_id=request_id,
        )
        return guest, job

    # --------------------------------------------------------------------------------------------------------- images

    def images(self) -> list[Image]:
        return self._host.images.images()

    def image(self, id: str) -> Image:
        """Raises NotFoundError."""
        return self._host.images.image(id)

    def fetch(self, body: bytes, request_id: str) -> tuple[Image, AgentJob]:
        """The image and the job that fetches it. Raises ValidationError, UnavailableError."""
        request = ImageRequest.from_json(body)
        request.validate()
        job = self.jobs.submit(
            action=FETCH_IMAGE,
            guest_id=AGENT,
            image_id=request.id,
            request=request.to_json().decode(),
            request_id=request_id,
        )
        return self._host.images.expected(request), job

    def delete_image(self, id: str) -> Image:
        """The image that was. Raises NotFoundError, ConflictError (image_in_use)."""
        image = self._host.images.delete(id)
        self._log.info(events.AGENT_IMAGE_DELETED, image_id=id)
        return image


_SNAPSHOT_WORK: Final = {
    CREATE_SNAPSHOT: snapshots.create_snapshot,
    DELETE_SNAPSHOT: snapshots.delete_snapshot,
    ROLLBACK_SNAPSHOT: snapshots.roll_back,
}


def job_worker(host: Host) -> Worker:
    """What does the agent's jobs: an action on a guest or its snapshots, or the fetch of an image."""

    def work(job: AgentJob, request: str, progress: Progress) -> str:
        if job.action == FETCH_IMAGE:
            return host.images.fetch(ImageRequest.from_json(request.encode()), progress)
        if job.action == CREATE:
            return create_guest(host, Guest.from_json(request.encode()), progress)
        guest_id = GuestID(job.guest_id)
        if snapshot_work := _SNAPSHOT_WORK.get(job.verb):
            asked: dict[str, str] = msgspec.json.decode(request)
            return snapshot_work(host, guest_id, asked["disk"], asked["name"], progress)
        return perform_action(host, guest_id, job.action, progress)

    return work
