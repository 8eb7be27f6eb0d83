"""A gate before an agent that does not answer lets one in at a time, and never waits for one who has left."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from lochness.errors import UnavailableError
from lochness_controller.workers.gates import CLOSE_AFTER, Gate, Gates

RETRY_MAX_S = 0.02


def fail(gate: Gate, *, is_try: bool = False) -> None:
    with suppress(UnavailableError), gate.asking(is_try):
        raise UnavailableError("no answer")


async def closed_gate() -> Gate:
    gate = Gates(lambda _hypervisor, _is_closed: None, retry_max_s=RETRY_MAX_S).of("hv")
    for _ in range(CLOSE_AFTER):
        fail(gate)
    assert gate.is_closed
    return gate


@pytest.mark.parametrize("steps", range(6))
def test_a_job_that_is_cancelled_while_it_is_told_of_a_failed_try_takes_no_turn(steps: int) -> None:
    async def run() -> None:
        gate = await closed_gate()
        assert await gate.enter(10)
        leaving = asyncio.create_task(gate.enter(10))
        await asyncio.sleep(0)
        fail(gate, is_try=True)  # all who wait are told, and one of them is cancelled at that moment
        for _ in range(steps):
            await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await gate.enter(10)

    asyncio.run(run())


def test_the_first_answer_lets_all_in() -> None:
    async def run() -> None:
        gate = await closed_gate()
        assert await gate.enter(10)
        waiting = [asyncio.create_task(gate.enter(10)) for _ in range(3)]
        await asyncio.sleep(0)
        with gate.asking(True):
            pass
        assert await asyncio.gather(*waiting) == [False] * 3
        assert not gate.is_closed

    asyncio.run(run())
