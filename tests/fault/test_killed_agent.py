"""A1 in small; `make bench-A1` is the whole of it."""

from __future__ import annotations

import pytest

from bench import a1_killed_agent as killed_agent


@pytest.mark.timeout(240)
def test_an_agent_that_is_killed_again_and_again_leaves_all_or_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    found = killed_agent.run(tmp_path_factory.mktemp("k"), kills=4, seed=1)
    assert found.violations == []
    assert found.kills == 4
    assert found.jobs >= 4
