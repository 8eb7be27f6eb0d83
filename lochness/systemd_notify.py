"""How does a daemon tell systemd about itself without ever depending on systemd?

sdnotify sends blocking and hides every error; here a send has a limit and says whether it arrived.

Invariants:
1. No method takes longer than its time limit or raises, whatever the socket does.
2. Without NOTIFY_SOCKET nothing is sent and everything counts as delivered.

Not guaranteed: that systemd read what it was sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

import sdnotify

#: Short, because the main thread waits for it and has a second to stop in; what was not delivered is sent again.
SEND_LIMIT_S: Final = 0.2


class SystemdNotifier:
    """The way to systemd's notification socket. Used by one thread."""

    def __init__(self) -> None:
        """Raises nothing: a socket that cannot be reached makes each `send` answer False."""
        self._is_wanted: Final = bool(os.environ.get("NOTIFY_SOCKET"))  # sdnotify reads the address from there
        self._sender: sdnotify.SystemdNotifier | None = None
        self.watchdog_s: Final = watchdog_period_s(os.environ)

    def ready(self) -> bool:
        return self.send("READY=1")

    def watchdog(self) -> bool:
        return self.send("WATCHDOG=1")

    def status(self, line: str) -> bool:
        return self.send("STATUS=" + " ".join(line.split()))

    def reloading(self) -> bool:
        """Followed by `ready` when the reload is done. systemd wants the time at which it began."""
        return self.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, *, limit_s: float) -> bool:
        return self.send("STOPPING=1", limit_s=limit_s)

    def send(self, state: str, *, limit_s: float = SEND_LIMIT_S) -> bool:
        """Send `state`; answers whether it was delivered (True without systemd). Ends within `limit_s`."""
        if not self._is_wanted:
            return True
        try:
            if self._sender is None:
                self._sender = sdnotify.SystemdNotifier(debug=True)  # debug: raise errors instead of hiding them
            self._sender.socket.settimeout(limit_s)
            self._sender.notify(state)
        except OSError:  # full (TimeoutError), gone, or never there; the next send connects anew
            if self._sender is not None:
                self._sender.socket.close()
            self._sender = None
            return False
        return True


def watchdog_period_s(environment: Mapping[str, str]) -> float | None:
    """The time within which systemd wants a sign of life, None when it wants none from this process."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    return int(usec) / 1e6
