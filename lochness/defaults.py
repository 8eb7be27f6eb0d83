"""Where is etcd, and where is the controller, when nobody says? Apart, as it must be loaded in no time."""

from __future__ import annotations

from typing import Final

DEFAULT_ETCD: Final = "http://127.0.0.1:2379"
DEFAULT_SERVER: Final = "http://127.0.0.1:17000"
