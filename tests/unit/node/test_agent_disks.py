"""A disk has its name when its bytes are on the disk, and not before: a power cut may come at any moment."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lochness.errors import UnavailableError
from lochness_node.agent.guests.disks import make_disk
from lochness_node.agent.guests.plan import DiskPlan

SIZE_MB = 3


def plan(directory: Path) -> DiskPlan:
    return DiskPlan(directory / "vda.raw", "raw", SIZE_MB, None)


def test_all_of_a_disk_is_on_the_disk_before_it_has_its_name(tmp_path: Path):
    seen: list[tuple[int, bool]] = []

    def look(path: Path) -> None:
        seen.append((path.stat().st_size, plan(tmp_path).path.exists()))

    assert make_disk(plan(tmp_path), look)
    assert seen == [(SIZE_MB << 20, False)]
    assert [path.name for path in tmp_path.iterdir()] == ["vda.raw"]


def test_a_disk_that_cannot_be_brought_to_the_disk_never_was(tmp_path: Path):
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with pytest.raises(UnavailableError, match="Input/output error"):
        make_disk(plan(tmp_path), fail)
    assert list(tmp_path.iterdir()) == []
    assert make_disk(plan(tmp_path))  # asked for again it is made
