"""Is this hypervisor registered, and has the operator been told?

A hypervisor's daemons may be started before its operator has registered it. They are well then and have nothing to do:
they say so once, keep looking, and begin by themselves.
"""

from __future__ import annotations

from lochness import events
from lochness.log import Logger


class Registration:
    """Says the two transitions, each once."""

    def __init__(self, hypervisor_id: str, log: Logger) -> None:
        self._hypervisor_id = hypervisor_id
        self._log = log
        self._is_missing = False

    def saw(self, *, is_registered: bool) -> None:
        """Tell what was read just now."""
        if not is_registered and not self._is_missing:
            self._log.warning(
                events.HYPERVISOR_NOT_REGISTERED,
                hypervisor=self._hypervisor_id,
                consequence="no guest can be placed here until an operator registers it",
            )
        elif is_registered and self._is_missing:
            self._log.info(events.HYPERVISOR_REGISTERED, hypervisor=self._hypervisor_id)
        self._is_missing = not is_registered

    @property
    def status(self) -> str:
        """One line for `systemctl status` while it is not registered."""
        return f"hypervisor {self._hypervisor_id} is not registered"
