"""What is in the store? Prints every key of Loch Ness with its value, one JSON object a line.

    python -m lochness_lab.keyspace http://127.0.0.1:2379

A process of its own, for an etcd that only a machine's processes reach.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from lochness import keys
from lochness.store.connect import open_store
from lochness.store.protocol import Prefix


def main(arguments: Sequence[str]) -> None:
    """Print the key space of the etcd at the URL."""
    store = open_store(arguments[0])
    try:
        for item in store.read(Prefix(keys.ROOT)).ranges[0]:
            print(json.dumps({"key": item.key, "value": item.value.decode(errors="replace")}))
    finally:
        store.close()


if __name__ == "__main__":
    main(sys.argv[1:])
