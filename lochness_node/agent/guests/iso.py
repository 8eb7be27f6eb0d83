"""How is a seed written as a disk that cloud-init finds?

The volume's label is "cidata". Plain ISO 9660 has no names like "meta-data": Rock Ridge has them for Linux, Joliet for
others.

Not guaranteed: that two writes of one seed are the same bytes (the file system carries the time).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import pycdlib

from lochness_node.agent.durable import replace_file
from lochness_node.agent.guests.seed import Seed

_LABEL: Final = "cidata"
_JOLIET: Final = 3
_ROCK_RIDGE: Final = "1.09"


def write_seed(path: Path, seed: Seed) -> None:
    """Put the seed's image at `path`, whole. Raises OSError."""
    replace_file(path, seed_image(seed), mode=0o600)  # user data may hold secrets; libvirt gives it to QEMU's user


def seed_image(seed: Seed) -> bytes:
    """The bytes of an ISO 9660 file system with the seed's files."""
    iso = pycdlib.PyCdlib()
    iso.new(joliet=_JOLIET, rock_ridge=_ROCK_RIDGE, vol_ident=_LABEL)
    for number, (name, content) in enumerate(seed.files.items()):
        iso.add_fp(io.BytesIO(content), len(content), f"/SEED{number}.;1", rr_name=name, joliet_path=f"/{name}")
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()
