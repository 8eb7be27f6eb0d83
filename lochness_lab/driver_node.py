"""`lochness-node` on a host of libvirt's test driver that is empty.

    python -m lochness_lab.driver_node all --config node.toml

The driver's default host comes with a domain of 2 processors and 8 GB, more than a small machine can spare for one that
exists only on paper. Its state is the process's, so it is removed from inside, before the daemons look.
"""

from __future__ import annotations

import sys

import libvirt

from lochness_node.main import main as lochness_node


def main() -> int:
    """Run `lochness-node` with this process's arguments; answers its exit code."""
    connection = libvirt.open("test:///default")  # open as long as we run: with the last one the state goes
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    try:
        return lochness_node(sys.argv[1:])
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
