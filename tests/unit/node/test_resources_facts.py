"""Where the figures come from, each alone."""

from __future__ import annotations

import os

import psutil
import pytest

from lochness.errors import UnavailableError
from lochness.host_facts import free_disk_mb, guest_disks_mb, host_cpus, host_memory_mb, numa_cells
from lochness.model.resources import HugePages, NumaCell


def test_memory_is_the_machines():
    assert host_memory_mb() == psutil.virtual_memory().total // 2**20


def test_cpus_are_the_machines():
    assert host_cpus() == psutil.cpu_count()


def test_the_guest_directory_is_made(tmp_path):
    directory = tmp_path / "var" / "guests"
    status = os.statvfs(tmp_path)
    free_mb = status.f_bavail * status.f_frsize // 2**20
    assert abs(free_disk_mb(directory) - free_mb) < 1024  # others write to the same file system
    assert directory.is_dir()


def test_a_directory_that_cannot_be_had_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file/guests"):
        free_disk_mb(tmp_path / "file" / "guests")


def test_disks_count_with_what_they_take_not_with_their_size(tmp_path):
    guest = tmp_path / "guest"
    guest.mkdir()
    (guest / "full").write_bytes(b"x" * (3 << 20))
    with (guest / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    (tmp_path / "no folder of a guest").write_bytes(b"x" * (5 << 20))
    (taken,) = guest_disks_mb(tmp_path).items()
    assert taken[0] == "guest"
    assert 3 <= taken[1] <= 4


def test_no_directory_takes_nothing(tmp_path):
    assert guest_disks_mb(tmp_path / "absent") == {}


def test_cells_and_huge_pages_are_read_as_the_kernel_shows_them(tmp_path):
    for number, total in ((0, 7), (10, 0), (2, 3)):
        pages = tmp_path / f"node{number}" / "hugepages" / "hugepages-2048kB"
        pages.mkdir(parents=True)
        (pages / "nr_hugepages").write_text(f"{total}\n")
        (pages / "free_hugepages").write_text("1\n")
        (pages.parents[1] / "meminfo").write_text(f"Node {number} MemTotal:  2048 kB\nNode {number} MemFree: 1 kB\n")
        (pages.parents[1] / "cpulist").write_text("0-3,8\n")
    cells = numa_cells(tmp_path)
    assert [cell.cell for cell in cells] == [0, 2, 10]
    assert cells[0] == NumaCell(cell=0, memory=2, cpus="0-3,8", huge_pages=(HugePages(size_kb=2048, total=7, free=1),))
    assert numa_cells(tmp_path / "absent") == ()


def test_this_machines_cells_have_memory_and_cpus():
    assert all(cell.memory > 0 and cell.cpus for cell in numa_cells())
