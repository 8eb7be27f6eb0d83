"""How are a guest's disks snapshotted, and brought back?

A snapshot is an internal one of the qcow2 file: it shares what has not changed since, needs no second file, and goes
with the disk. Its name in the file is ours (`PREFIX`); snapshots that others made there are neither shown nor touched.

1. A snapshot holds the disks as a power cut at that moment would leave them, all at one moment; memory is not in it.
   A guest that runs goes on.
2. What is there is read from the disks themselves: nothing else remembers a snapshot.
3. A rollback starts the guest again only if it ran, and then as every start: under the binding of now. That is asked
   before its power is cut.

Not guaranteed: that file systems were flushed; a guest that must be sure shuts down first. That all disks went back
when a rollback was cut short: the job then says so (interrupted), and doing it again finishes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lochness.errors import ConflictError, DeadlineError, NotFoundError
from lochness.identity import GuestID
from lochness_node.agent.guests.decide_snapshots import PREFIX, DiskSnapshot, Snapshot, joined, require_free
from lochness_node.agent.guests.host import Host, Progress
from lochness_node.agent.guests.plan import device, shown_disks
from lochness_node.agent.guests.power import start_guest
from lochness_node.agent.guests.qemu_img import qemu_img, qemu_img_json
from lochness_node.driver.protocol import Domain

_ROLLBACK_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class GuestDisks:
    """A guest's own disks by their names in it, and its domain."""

    paths: Mapping[str, Path]
    domain: Domain | None

    def chosen(self, disk: str) -> dict[str, Path]:
        """All of them, or the one named `disk`. Raises NotFoundError, ConflictError for a guest without any."""
        if disk and disk not in self.paths:
            raise NotFoundError("disk", disk)
        if not self.paths:
            raise ConflictError("the guest has no disk, so there is nothing to snapshot", reason="no_disks")
        return {disk: self.paths[disk]} if disk else dict(self.paths)


def guest_disks(host: Host, guest_id: GuestID) -> GuestDisks:
    """Raises NotFoundError, ConflictError (snapshots_not_supported), UnavailableError."""
    guest = host.records.require(guest_id)
    if host.disk_format() != "qcow2":
        raise ConflictError(
            "this host's disks are raw files, which hold no snapshots; install qemu-img (Debian package qemu-utils)",
            reason="snapshots_not_supported",
        )
    shown = shown_disks(guest, host.records.path(guest_id), "qcow2")
    paths = {device(index): Path(disk.volume) for index, disk in enumerate(shown)}
    return GuestDisks(paths, host.domain(guest_id))


def list_snapshots(host: Host, guest_id: GuestID, disk: str) -> list[Snapshot]:
    """The snapshots of the whole guest, or of its `disk`, oldest first.

    One of the whole guest is one that every disk has. Raises as `guest_disks`, NotFoundError for the disk, DriverError.
    """
    disks = guest_disks(host, guest_id)
    return joined(_read(host, guest_id, disks, disks.chosen(disk)))


def get_snapshot(host: Host, guest_id: GuestID, disk: str, name: str) -> Snapshot:
    """Raises as `list_snapshots`, NotFoundError."""
    for snapshot in list_snapshots(host, guest_id, disk):
        if snapshot.name == name:
            return snapshot
    raise NotFoundError("snapshot", name)


def create_snapshot(host: Host, guest_id: GuestID, disk: str, name: str, progress: Progress) -> str:
    """Raises as `list_snapshots`, ConflictError (snapshot_exists)."""
    with host.locked(guest_id):
        disks = guest_disks(host, guest_id)
        chosen = disks.chosen(disk)
        here = {device: _names(found) for device, found in _read(host, guest_id, disks, chosen).items()}
        require_free(here, name)
        progress(f"snapshotting {', '.join(chosen)}")
        if _is_open(host, disks):
            try:
                host.driver.take_snapshot(guest_id, [str(path) for path in chosen.values()], PREFIX + name)
            except DeadlineError:
                found = _read(host, guest_id, disks, chosen)
                if not all(name in _names(each) for each in found.values()):
                    raise
        else:
            _snapshot_files(chosen, name)
    how = "as after a power cut" if disks.domain is not None and disks.domain.state.is_active else "while it was off"
    return f"snapshot {name} of {', '.join(chosen)} was taken, {how}"


def delete_snapshot(host: Host, guest_id: GuestID, disk: str, name: str, progress: Progress) -> str:
    """Remove it from every disk that has it. Raises as `list_snapshots`, NotFoundError, ConflictError (in use)."""
    with host.locked(guest_id):
        disks = guest_disks(host, guest_id)
        chosen = disks.chosen(disk)
        found = _read(host, guest_id, disks, chosen)
        having = {device: path for device, path in chosen.items() if name in _names(found[device])}
        if not having:
            raise NotFoundError("snapshot", name)
        if host.downloads.is_read(guest_id, name):
            raise ConflictError(f"snapshot {name} is being downloaded", reason="snapshot_in_use")
        progress(f"deleting it from {', '.join(having)}")
        if _is_open(host, disks):
            host.driver.drop_snapshot(guest_id, [str(path) for path in having.values()], PREFIX + name)
        else:
            for device, path in having.items():
                _change(path, "-d", name, f"delete snapshot {name} of {device}")
    return f"snapshot {name} of {', '.join(having)} was deleted"


def roll_back(host: Host, guest_id: GuestID, disk: str, name: str, progress: Progress) -> str:
    """Bring the disks back to the snapshot; a guest that ran is started again.

    Raises as `list_snapshots`, NotFoundError, ConflictError (the guest runs and may not be started here).
    """
    with host.locked(guest_id):
        get_snapshot(host, guest_id, disk, name)
        disks = guest_disks(host, guest_id)
        was_active = disks.domain is not None and disks.domain.state.is_active
        if was_active:
            host.verified_revision(guest_id)
            progress("cutting the guest's power")
            host.driver.destroy(guest_id)
        chosen = disks.chosen(disk)
        for device, path in chosen.items():
            progress(f"rolling {device} back")
            _change(path, "-a", name, f"roll {device} back to {name}")
        if not was_active:
            return f"{', '.join(chosen)} went back to snapshot {name}; the guest was off and is off"
        start_guest(host, guest_id, progress)
    return f"{', '.join(chosen)} went back to snapshot {name}; the guest was started again"


def _is_open(host: Host, disks: GuestDisks) -> bool:
    """Whether a process has the disks open, so that only it may change them. The test driver's guests have none."""
    return disks.domain is not None and disks.domain.state.is_active and host.domain_type() != "test"


def _read(
    host: Host, guest_id: GuestID, disks: GuestDisks, chosen: Mapping[str, Path]
) -> dict[str, list[DiskSnapshot]]:
    """The snapshots of ours on each of these disks, by its name."""
    if _is_open(host, disks):
        told = host.driver.snapshots(guest_id, [str(path) for path in chosen.values()])
        return {
            device: [
                DiskSnapshot(each.name.removeprefix(PREFIX), each.created_s)
                for each in told[str(path)]
                if each.name.startswith(PREFIX)
            ]
            for device, path in chosen.items()
        }
    return {device: _read_file(path) for device, path in chosen.items()}


def _read_file(path: Path) -> list[DiskSnapshot]:
    told = qemu_img_json("info", "--output=json", "-f", "qcow2", str(path), what=f"read the snapshots of {path}")
    return [
        DiskSnapshot(each["name"].removeprefix(PREFIX), each["date-sec"] + each["date-nsec"] / 1e9)
        for each in told.get("snapshots", [])
        if each["name"].startswith(PREFIX)
    ]


def _names(found: Sequence[DiskSnapshot]) -> set[str]:
    return {snapshot.name for snapshot in found}


def _snapshot_files(chosen: Mapping[str, Path], name: str) -> None:
    """All or, after an error, none of them."""
    done: list[Path] = []
    try:
        for device, path in chosen.items():
            _change(path, "-c", name, f"snapshot {device}")
            done.append(path)
    except BaseException:
        for path in done:
            _change(path, "-d", name, f"take back the snapshot of {path.name}")
        raise


def _change(path: Path, option: str, name: str, what: str) -> None:
    options = f"driver=qcow2,file.driver=file,file.filename={str(path).replace(',', ',,')}"
    qemu_img("snapshot", "-q", "--image-opts", option, PREFIX + name, options, what=what, timeout_s=_ROLLBACK_TIMEOUT_S)
