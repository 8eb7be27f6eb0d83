"""What a server's listener hands on to its connections."""

from __future__ import annotations

import socket

from lochness.listen import Address, open_listener


def test_an_accepted_connection_does_not_hold_back_its_second_write():
    listener, address = open_listener(Address("127.0.0.1", 0))
    with listener, socket.create_connection((address.host, address.port), timeout=5):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
