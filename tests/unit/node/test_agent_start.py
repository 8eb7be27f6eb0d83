"""A start whose answer did not come in time: what counts is whether the guest runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lochness.errors import DeadlineError, UnavailableError
from lochness.identity import GuestID
from lochness_node.agent.guests.host import start_domain
from lochness_node.driver.libvirt_driver import LibvirtDriver
from lochness_node.driver.protocol import START_LIMIT_S, Domain, DomainSpec, DomainState

GUEST = GuestID("c6a64b1f-3f0b-4c43-9a57-b9d57a2a8e30")
_SPEC = DomainSpec(GUEST, binding_revision=1, title="late", memory_mb=64, vcpus=1, domain_type="test")


class LateLibvirt(LibvirtDriver):
    """libvirt's test driver behind a start that is left behind: done or not, askable or not."""

    def __init__(self, *, is_done: bool, hangs_on: bool) -> None:
        super().__init__("test:///default")
        self.is_done = is_done
        self.hangs_on = hangs_on

    def start(self, guest_id: GuestID, *, timeout_s: float | None = None) -> None:
        if self.is_done:
            super().start(guest_id)
        raise DeadlineError(f"start {guest_id}: libvirt did not answer within {timeout_s:g} s")

    def domain(self, guest_id: GuestID) -> Domain:
        if self.hangs_on:
            raise UnavailableError(f"libvirt: an earlier call for {guest_id} still hangs")
        return super().domain(guest_id)


@pytest.fixture(params=[(True, False), (False, False), (False, True)], ids=["came about", "did not", "hangs on"])
def late(request: pytest.FixtureRequest) -> Iterator[LateLibvirt]:
    is_done, hangs_on = request.param
    driver = LateLibvirt(is_done=is_done, hangs_on=hangs_on)
    driver.define(_SPEC)
    yield driver
    driver.hangs_on = False
    if driver.domain(GUEST).state is DomainState.RUNNING:
        driver.destroy(GUEST)
    driver.undefine(GUEST)
    driver.close()


def test_a_late_answer_is_a_failure_only_when_the_guest_does_not_run(late: LateLibvirt):
    if late.is_done:
        start_domain(late, GUEST)
        assert late.domain(GUEST).state is DomainState.RUNNING
        return
    # Whatever the second look says, the operator reads what the start itself came to.
    with pytest.raises(DeadlineError, match=f"did not answer within {START_LIMIT_S:g} s"):
        start_domain(late, GUEST)
