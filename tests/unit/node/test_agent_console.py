"""Which part of a console is read."""

from __future__ import annotations

import pytest

from lochness_node.agent.guests.console import console_window


@pytest.mark.parametrize(
    ("size_bytes", "since", "limit_bytes", "window"),
    [
        (0, None, 10, (0, 0)),
        (5, None, 10, (0, 5)),
        (50, None, 10, (40, 10)),
        (50, 0, 10, (0, 10)),
        (50, 45, 10, (45, 5)),
        (50, 50, 10, (50, 0)),
        (50, 51, 10, (0, 10)),  # it has begun anew
        (0, 7, 10, (0, 0)),
    ],
)
def test_the_end_or_what_came_since(
    size_bytes: int, since: int | None, limit_bytes: int, window: tuple[int, int]
) -> None:
    assert console_window(size_bytes, since, limit_bytes) == window
