"""R1 in small; `make bench-R1` is the whole of it."""

from __future__ import annotations

import pytest

from bench import r1_racing_placements as racing_placements


@pytest.mark.timeout(120)
def test_racing_processes_neither_overcommit_nor_share_nor_lose():
    seen = racing_placements.run(600, processes=4, hypervisors=4)
    assert seen.calls == 600
    assert seen.outcomes["placed"] > 200
    assert seen.outcomes["refused"] > 50
    assert (seen.violations, seen.lost) == (0, 0)
