"""What does the agent remember of a guest, and where do the guest's files lie?

1. A guest's files are all below guest_dir/ID/, ID being a parsed UUID; removing that directory removes them all.
2. guest.json there is the request as it was taken; it is written before the first disk.

Not guaranteed: that a guest which is remembered has a domain, or one that has a domain is remembered.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from lochness.errors import NotFoundError, UnavailableError, ValidationError
from lochness.identity import GuestID, is_id, parse_id
from lochness_node.agent.durable import replace_file
from lochness_node.agent.guests.plan import images_of
from lochness_node.agent.wire import Guest

_RECORD: Final = "guest.json"


class GuestRecords:
    """The guests' directories below `directory`, which is made when missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Raises UnavailableError when the directory cannot be made."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"cannot make the guest directory {self._directory}: {error.strerror}") from error

    def path(self, guest_id: GuestID) -> Path:
        """Where the guest's files lie, or would."""
        return self._directory / parse_id(guest_id)

    def ids(self) -> list[GuestID]:
        """Every guest that has a directory. Raises UnavailableError."""
        try:
            return sorted(GuestID(path.name) for path in self._directory.iterdir() if is_id(path.name))
        except OSError as error:
            raise UnavailableError(f"cannot read the guest directory {self._directory}: {error.strerror}") from error

    def remembered(self, guest_id: GuestID) -> Guest | None:
        """The request for this guest, None when there is none. Raises UnavailableError when it cannot be read."""
        path = self.path(guest_id) / _RECORD
        try:
            return Guest.from_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError) as error:
            raise UnavailableError(f"the record of guest {guest_id} in {path} cannot be read") from error

    def require(self, guest_id: GuestID) -> Guest:
        """As `remembered`, but raises NotFoundError when there is none."""
        if (guest := self.remembered(guest_id)) is None:
            raise NotFoundError("guest", guest_id)
        return guest

    def remember(self, guest: Guest) -> None:
        """Make the guest's directory and write its record there. Raises OSError."""
        directory = self.path(GuestID(guest.id))
        directory.mkdir(mode=0o751, exist_ok=True)  # QEMU's user passes through, the daemons' group counts
        replace_file(directory / _RECORD, msgspec.json.format(guest.to_json()) + b"\n", mode=0o600)

    def remove(self, guest_id: GuestID) -> bool:
        """Remove the guest's directory with all that is in it; False when there is none. Raises UnavailableError."""
        path = self.path(guest_id)
        try:
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UnavailableError(f"cannot remove {error.filename or path}: {error.strerror}") from error
        return True

    def on_image(self, image_id: str) -> list[GuestID]:
        """The guests that stand on an image. Raises UnavailableError when a record cannot be read."""
        return [id for id in self.ids() if (guest := self.remembered(id)) is not None and image_id in images_of(guest)]
