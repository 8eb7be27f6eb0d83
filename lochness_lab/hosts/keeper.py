"""The process that holds a laboratory's room open: python -m lochness_lab.hosts.keeper DIRECTORY."""

from __future__ import annotations

import sys
from pathlib import Path

from lochness.errors import LochnessError
from lochness_lab.hosts.room import keep

if __name__ == "__main__":
    try:
        keep(Path(sys.argv[1]))
    except LochnessError as error:
        sys.exit(error.message)
