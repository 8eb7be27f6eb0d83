"""What becomes of a request, once it is known to be well-formed? The agent without HTTP.

1. A create, a fetch and a delete are idempotent by id: asked again while under way they are the same job, asked again
   afterwards they find it done.
2. What a request asks of a guest that is not here is refused at once, except a delete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from lochness import events
from lochness.errors import LochnessError, NotFoundError
from lochness.identity import GuestID
from lochness.log import get_logger
from lochness_node.agent.guests.create import create_guest
from lochness_node.agent.guests.host import Host
from lochness_node.agent.guests.power import perform_action
from lochness_node.agent.guests.show import MISSING, show_guest, show_guests, shown
from lochness_node.agent.jobs.registry import JobRegistry
from lochness_node.agent.wire import ACTIONS, AGENT, CREATE, DELETE, FETCH_IMAGE, AgentJob, Guest, Image, ImageRequest


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
            lambda progress: create_guest(self._host, guest, progress),
            action=CREATE,
            guest_id=guest.id,
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
            lambda progress: perform_action(self._host, guest_id, action, progress),
            action=action,
            guest_id=guest_id,
            request_id=request_id,
        )
        return guest, job

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
            lambda progress: self._host.images.fetch(request, progress),
            action=FETCH_IMAGE,
            guest_id=AGENT,
            image_id=request.id,
            request_id=request_id,
        )
        return self._host.images.expected(request), job

    def delete_image(self, id: str) -> Image:
        """The image that was. Raises NotFoundError, ConflictError (image_in_use)."""
        image = self._host.images.delete(id)
        self._log.info(events.AGENT_IMAGE_DELETED, image_id=id)
        return image
